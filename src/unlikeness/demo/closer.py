"""A picture and its protected copy for a page: as a whole, and close where the change is largest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from unlikeness.pictures import open_picture
from unlikeness.protect.tiling.resample import shrink

__all__ = ["compared"]

WHOLE = 300
"""Long side of the whole pictures [px]."""
CLOSE = 150
"""Side of the close-up, in pixels of the picture itself."""

Floats = NDArray[np.float32]


def compared(original: Path, protected: Path, *, gain: float) -> list[Image.Image]:
    """[before, after, difference] as a whole, then the same close up.

    The difference is `gain` times as strong, around middle grey. No float of a whole large picture exists at
    any time. Raises PictureError if one cannot be read.
    """
    a, b = open_picture(original), open_picture(protected)
    width, height = a.size
    factor = min(1.0, WHOLE / max(width, height))
    small = (max(round(width * factor), 1), max(round(height * factor), 1))
    whole = [shrink(picture.window, a.size, small) for picture in (a, b)]
    side = min(CLOSE, width, height)
    x, y = _busiest(np.abs(whole[1] - whole[0]).mean(2), max(round(side * factor), 1))
    x0, y0 = min(round(x / factor), width - side), min(round(y / factor), height - side)
    close = [picture.window(y0, y0 + side, x0, x0 + side) for picture in (a, b)]
    return [_image(rgb) for pair in (whole, close) for rgb in (*pair, 0.5 + gain * (pair[1] - pair[0]))]


def _busiest(change: Floats, side: int) -> tuple[int, int]:
    """(x, y) of the upper left corner of the square of `side` px that holds most of `change` [h, w]."""
    means = F.avg_pool2d(torch.from_numpy(np.ascontiguousarray(change))[None], side, stride=1)[0]
    y, x = divmod(int(means.argmax()), means.shape[1])
    return x, y


def _image(rgb: Floats) -> Image.Image:
    return Image.fromarray((rgb.clip(0, 1) * 255).round().astype(np.uint8))
