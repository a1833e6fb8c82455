"""What the saved file really holds: read from disk again and compared with its original."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from unlikeness.measure.visibility import SSIM_WINDOW, ssim
from unlikeness.pictures import Edit, Picture

__all__ = ["Visibility", "compare", "kept"]

_BAND_PIXELS = 1 << 18
_SSIM_PIXELS = 2_000_000
_STRIP = 64
_EVERY = 8
_ON_ITS_SIDE = 5
"""The EXIF orientations from this one on are turned by a quarter."""


@dataclass(frozen=True)
class Visibility:
    """linf [n/255] and psnr [dB; None: identical] over all pixels; ssim over 2 megapixels at most.

    A larger picture's SSIM is the mean over strips of rows, evenly spaced from top to bottom. None if a side
    is shorter than its window of 11 px.
    """

    linf: float
    psnr: float | None
    ssim: float | None


def compare(original: Picture, saved: Picture) -> Visibility:
    """Compare two pictures of one size; floats exist for a band of rows at a time only.

    Raises ValueError if the sizes differ.
    """
    if original.size != saved.size:
        raise ValueError(f"{original.size} and {saved.size} are different sizes")
    width, height = original.size
    largest, squares = 0.0, 0.0
    for number, band in enumerate(_bands(original)):
        difference = saved.window(*band) - original.window(*band)
        largest = max(largest, float(np.abs(difference).max()))
        squares += float(np.square(difference, out=difference).sum(dtype=np.float64))
        if number % _EVERY == 0:
            original.let_go()
            saved.let_go()
    mean = squares / (3 * width * height)
    original.let_go()
    saved.let_go()
    return Visibility(
        linf=round(largest * 255, 4),
        psnr=-10 * math.log10(mean) if mean > 0 else None,
        ssim=_ssim(original, saved),
    )


def kept(original: Picture, edit: Edit, saved: Picture, *, enough: float) -> float:
    """The share of the edit that a lossy file still holds: 1 for all of it, about 0 for none.

    It is the projection of the saved change on the change that was asked for, over the latter's square.
    Compression moves values too, but not along the edit. One band of rows in eight is looked at, and all of
    them only where those leave doubt whether there is `enough`.
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
    """Windows that together are the picture: rows of the file, which may be columns of the upright one."""
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
    rows = _STRIP + SSIM_WINDOW - 1
    strips = max(_SSIM_PIXELS // (width * _STRIP), 1)
    if strips * _STRIP >= height:
        return _ssim_of(original, saved, 0, height)
    rows = min(rows, height)
    tops = np.unique(np.linspace(0, height - rows, strips).astype(int))
    parts = [_ssim_of(original, saved, y, y + rows) for y in tops]
    return sum(parts) / len(parts)


def _ssim_of(original: Picture, saved: Picture, y0: int, y1: int) -> float:
    strips = _tensor(original, y0, y1), _tensor(saved, y0, y1)
    original.let_go()
    saved.let_go()
    return float(ssim(*strips))


def _tensor(picture: Picture, y0: int, y1: int) -> torch.Tensor:
    band: NDArray[np.float32] = picture.window(y0, y1, 0, picture.size[0])
    return torch.from_numpy(band).permute(2, 0, 1)[None]
