"""The saved file: read again, compared with its original, and called a copy if nothing of the change is left.

A file is only a copy if the budget is smaller than a step of its values, or if a mask or a PSNR leaves
nothing. It is also one if the method found nothing to change, or the file's compression removed the change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unlikeness.measure.visibility import SSIM_WINDOW, mean_ssim
from unlikeness.pictures import Edit, Picture
from unlikeness.protect.files.masks import Mask

__all__ = [
    "BELOW", "BLACK", "COARSE", "FAINT", "HARDLY", "NOTHING", "UNCHANGED",
    "Visibility", "compare", "foreseen", "kept", "why_unchanged",
]  # fmt: skip

UNCHANGED = "nothing was changed, this is a copy: the budget is smaller than a step of the file's values"
BLACK = "nothing was changed, this is a copy: the mask is black or nearly so"
FAINT = "nothing was changed, this is a copy: psnr leaves less than a step of the file's values"
NOTHING = "nothing was changed, this is a copy: the protection found nothing to change"
COARSE = (
    "next to nothing of the change is left, this is a copy: the file's own compression takes the change "
    "away; convert the picture to PNG and protect that"
)
BELOW = (
    "next to nothing was changed, this is a copy: no value by half of 1/255, which the eight bits that "
    "training programs read do not show; raise the budget"
)
HARDLY = (
    "next to nothing was changed, this is a copy: rounding to the file's values leaves less than a "
    "hundredth of the change"
)

_KEPT = 0.01
"""Smallest share of the change that a lossy file of a protected picture holds."""
_LOST = 20.0
"""dB by which rounding may weaken a change: to a hundredth of its energy."""
_FAINTEST = 12.0
"""dB by which a protection may stay below the energy of its budget."""
_STEP = 0.5
"""n/255: the smallest change of a value that eight bits show."""

_BAND_PIXELS = 1 << 16
_SSIM_PIXELS = 2_000_000
_STRIP = 64
_EVERY = 8
_ON_ITS_SIDE = 5
"""EXIF orientations from this one on include a quarter turn."""


@dataclass(frozen=True)
class Visibility:
    """How far two pictures differ: linf [n/255] and psnr [dB; None: identical] over all pixels, and ssim.

    The SSIM of a picture over 2 megapixels is the mean over evenly spaced strips of rows. It is None if a
    side is shorter than the window of 11 px.
    """

    linf: float
    psnr: float | None
    ssim: float | None


def compare(original: Picture, saved: Picture) -> Visibility:
    """Compare two pictures of one size, one band of rows at a time. ValueError if the sizes differ."""
    if original.size != saved.size:
        raise ValueError(f"{original.size} and {saved.size} are different sizes")
    width, height = original.size
    largest, squares = 0.0, 0.0
    for number, band in enumerate(_bands(original)):
        difference = saved.window(*band) - original.window(*band)
        largest = max(largest, float(difference.max()), -float(difference.min()))
        squares += float(np.vdot(difference, difference))
        if number % _EVERY == 0:
            original.let_go()
            saved.let_go()
    mean = squares / (3 * width * height)
    original.let_go()
    saved.let_go()
    return Visibility(
        linf=round(largest * 255, 4), psnr=-10 * math.log10(mean) if mean > 0 else None,
        ssim=_ssim(original, saved),
    )  # fmt: skip


def kept(original: Picture, edit: Edit, saved: Picture, *, enough: float) -> float:
    """The share of the edit that a lossy file still holds: 1 for all of it, about 0 for none.

    It is the projection of the saved change on the requested change, over the square of the latter:
    compression moves values too, but not along the edit. One band of rows in eight is measured, and all of
    them only if those leave doubt whether there is `enough`.
    """
    bands = _bands(original)
    for some in (bands[::_EVERY], bands):
        along, squares = 0.0, 0.0
        for number, band in enumerate(some):
            before = original.window(*band)
            asked = (edit.window(*band) - before).ravel()
            along += float(asked @ (saved.window(*band) - before).ravel())
            squares += float(asked @ asked)
            if number % _EVERY == 0:
                edit.let_go()
                saved.let_go()
        if squares and along / squares > 10 * enough:
            break
    return along / squares if squares else 0.0


def _bands(picture: Picture) -> list[tuple[int, int, int, int]]:
    """Windows that cover the picture: rows of the file, which may be columns of the upright picture."""
    width, height = picture.size
    along, across = (height, width) if picture.orientation >= _ON_ITS_SIDE else (width, height)
    step = max(1, _BAND_PIXELS // along)
    parts = [(start, min(start + step, across)) for start in range(0, across, step)]
    if picture.orientation >= _ON_ITS_SIDE:
        return [(0, height, *part) for part in parts]
    return [(*part, 0, width) for part in parts]


def _ssim(original: Picture, saved: Picture) -> float | None:
    width, height = original.size
    if min(width, height) < SSIM_WINDOW:
        return None
    strips = max(_SSIM_PIXELS // (width * _STRIP), 1)
    if strips * _STRIP >= height:
        return _ssim_of(original, saved, 0, height)
    rows = min(_STRIP + SSIM_WINDOW - 1, height)
    tops = np.unique(np.linspace(0, height - rows, strips).astype(int))
    return sum(_ssim_of(original, saved, y, y + rows) for y in tops) / len(tops)


def _ssim_of(original: Picture, saved: Picture, y0: int, y1: int) -> float:
    bands = (p.window(y0, y1, 0, p.size[0]).transpose(2, 0, 1) for p in (original, saved))
    value = mean_ssim(*bands)
    original.let_go()
    saved.let_go()
    return value


def why_unchanged(
    picture: Picture, edit: Edit, saved: Picture, seen: Visibility, *, budget: float, psnr: float | None,
    masked: bool,
) -> str | None:  # fmt: skip
    """Why `saved` is only a copy of `picture`; None if it holds the edit.

    seen: how far they differ. budget [n/255], psnr [dB; None: any], masked: as requested.
    """
    if edit.changed:
        if not picture.lossless:
            lost = seen.linf == 0 or kept(picture, edit, saved, enough=_KEPT) < _KEPT
            return COARSE if lost else None
        if seen.linf < _STEP:
            return BELOW
        asked = max(psnr or 0.0, 20 * math.log10(255 / budget) + _FAINTEST)
        return HARDLY if not masked and seen.psnr is not None and seen.psnr > asked + _LOST else None
    if masked:
        return BLACK
    if psnr is not None:
        return FAINT
    return UNCHANGED if _steps(picture, budget) < 1 else NOTHING


def foreseen(picture: Picture, budget: float, mask: Mask | None) -> str | None:
    """Why a picture will be only a copy, as far as it is known before anything is computed."""
    if _steps(picture, budget) < 1:
        return UNCHANGED
    if mask is not None and _steps(picture, budget) * int(mask.values.max()) / 255 < 0.5:  # rounded to 0
        return BLACK
    return BELOW if budget < _STEP else None


def _steps(picture: Picture, budget: float) -> float:
    """The budget in steps of the file's values."""
    return budget * (1 if picture.depth == 8 else 257)
