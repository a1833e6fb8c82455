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
    step = max(1, _BAND_PIXELS // width)
    for y0 in range(0, height, step):
        y1 = min(y0 + step, height)
        difference = saved.window(y0, y1, 0, width) - original.window(y0, y1, 0, width)
        largest = max(largest, float(np.abs(difference).max()))
        squares += float(np.square(difference, out=difference).sum(dtype=np.float64))
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
    width, height = original.size
    step = max(1, _BAND_PIXELS // width)
    tops = range(0, height, step)
    for some in (tops[::_EVERY], tops):
        along, squares = 0.0, 0.0
        for y0 in some:
            y1 = min(y0 + step, height)
            before = original.window(y0, y1, 0, width)
            asked = (edit.window(y0, y1, 0, width) - before).ravel()
            along += float(asked @ (saved.window(y0, y1, 0, width) - before).ravel())
            squares += float(asked @ asked)
        if squares and along / squares > 10 * enough:
            break
    return along / squares if squares else 0.0


def _ssim(original: Picture, saved: Picture) -> float | None:
    width, height = original.size
    if min(width, height) < SSIM_WINDOW:
        return None
    rows = _STRIP + SSIM_WINDOW - 1
    strips = max(_SSIM_PIXELS // (width * _STRIP), 1)
    if strips * _STRIP >= height:
        return float(ssim(_tensor(original, 0, height), _tensor(saved, 0, height)))
    rows = min(rows, height)
    tops = np.unique(np.linspace(0, height - rows, strips).astype(int))
    parts = [float(ssim(_tensor(original, y, y + rows), _tensor(saved, y, y + rows))) for y in tops]
    return sum(parts) / len(parts)


def _tensor(picture: Picture, y0: int, y1: int) -> torch.Tensor:
    band: NDArray[np.float32] = picture.window(y0, y1, 0, picture.size[0])
    return torch.from_numpy(band).permute(2, 0, 1)[None]
