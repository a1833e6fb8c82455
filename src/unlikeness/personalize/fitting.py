"""Pictures at the size at which a trainer encodes them: squares, aspect buckets, or crops."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["bucket", "fitted", "step_of"]

_STEP = 64
"""Sides of buckets are multiples of this [px], as in sd-scripts; for small models of side / 8."""


def step_of(side: int, unit: int) -> int:
    """The step between the sides of buckets [px] for a model of `side` px, a multiple of `unit` px."""
    return unit * max(round(min(_STEP, side / 8) / unit), 1)


def bucket(height: int, width: int, side: int, step: int) -> tuple[int, int]:
    """(height, width) of the bucket whose aspect is the nearest to the picture's.

    Its sides are multiples of `step`, from half to twice of `side`; its area is at most side².
    """
    least = -(-side // 2 // step) * step
    found = []
    for one in range(least, 2 * side + 1, step):
        other = min(side * side // one // step * step, 2 * side)
        if other >= least:
            found += [(one, other), (other, one)]
    aspect = math.log(height / width)
    return min(found, key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), -size[0] * size[1]))


def fitted(picture: Tensor, side: int, step: int, *, fit: str, filter: str) -> Tensor:
    """[3, h, w] in [0, 1] of a picture [3, H, W] in 8 bits, in the centre of which the rest is cut off.

    fit, filter: see `TrainerSettings`. "crop" resizes only a picture whose short side is below `side`, and
    leaves the cutting to each view.
    """
    height, width = picture.shape[1:]
    if fit == "bucket":
        size = bucket(height, width, side, step)
    elif fit == "crop":
        scale = max(side / min(height, width), 1.0)
        size = max(round(height * scale), side), max(round(width * scale), side)
    else:
        size = side, side
    scale = max(size[0] / height, size[1] / width)
    longer = max(round(height * scale), size[0]), max(round(width * scale), size[1])
    resized = _resized(picture, longer, filter)
    top, left = ((n - kept) // 2 for n, kept in zip(resized.shape[1:], size, strict=True))
    return resized[:, top : top + size[0], left : left + size[1]].float() / 255


def _resized(picture: Tensor, size: tuple[int, int], filter: str) -> Tensor:
    """[3, *size] in 8 bits, as Pillow resizes it."""
    from PIL import Image

    if picture.shape[1:] == size:
        return picture
    (height, width), shrinks = size, size[0] < picture.shape[1]
    how = Image.Resampling[{"area": "BOX" if shrinks else "LANCZOS"}.get(filter, filter.upper())]
    image = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
    return torch.from_numpy(np.array(image.resize((width, height), how))).permute(2, 0, 1)
