"""A picture before and after: as a whole, and close up where a change is seen first and where it hides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from unlikeness.html import Shown, show
from unlikeness.measure.patterns import flat_pattern
from unlikeness.pictures import Picture, open_picture
from unlikeness.protect.tiling.resample import shrink

__all__ = ["CLOSE", "TIMES", "WHOLE", "Area", "Comparison", "compared"]

WHOLE = 300
"""Long side of a whole picture on the page [px]."""
CLOSE = 210
"""Side of a close-up on the page [px]."""
TIMES = 3
"""Enlargement of the second close-up of an area, which shows its middle."""
MOST_PIXELS = 1 << 24
"""Larger pictures get no figure for patterns, which needs all of a picture as floats."""
_SEARCHED = 800  # long side of the copy in which areas are looked for [px]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Area:
    """One place of a picture, before and after. close: at 100 %; closer: its middle, enlarged.

    widths: of the two on the page [px].
    """

    title: str
    close: list[Shown]
    closer: list[Shown]
    widths: tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """What the page shows of one picture. whole: before, after, and the difference."""

    whole: list[Shown]
    areas: list[Area]
    pattern: str
    """A sentence about the strongest regular pattern in flat areas; empty for a very large picture."""


def compared(original: Path, protected: Path, *, gain: float) -> Comparison:
    """gain: factor of the difference, around middle grey. PictureError if a picture cannot be read."""
    a, b = open_picture(original), open_picture(protected)
    whole = [_reduced(picture, WHOLE) for picture in (a, b)]
    images = [_image(rgb) for rgb in (*whole, 0.5 + gain * (whole[1] - whole[0]))]
    words = ["before", "protected", f"difference × {gain:g}"]
    flat, textured = _places(a)
    areas = [
        _area("The flattest area", a, b, flat),
        _area("The area with the most texture", a, b, textured),
    ]
    return Comparison(show(images, words), areas, _pattern(a, b))


def _reduced(picture: Picture, side: int) -> Floats:
    width, height = picture.size
    factor = min(1.0, side / max(width, height))
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return shrink(picture.window, picture.size, size)


def _places(picture: Picture) -> tuple[tuple[int, int], tuple[int, int]]:
    """(x, y), the upper left corners of the flattest close-up and of the one with the most texture."""
    width, height = picture.size
    side = min(CLOSE, width, height)
    grey = torch.from_numpy(np.ascontiguousarray(_reduced(picture, _SEARCHED).mean(2)))
    factor = max(grey.shape) / max(width, height)
    steps = torch.zeros_like(grey)
    steps[:, 1:] += grey.diff(dim=1).abs()
    steps[1:] += grey.diff(dim=0).abs()
    window = max(min(round(side * factor), *grey.shape), 1)
    columns = F.avg_pool2d(steps[None, None], (window, 1), stride=1)  # a mean of means
    texture = F.avg_pool2d(columns, (1, window), stride=1)[0, 0]
    found = []
    for place in (int(texture.argmin()), int(texture.argmax())):
        y, x = divmod(place, texture.shape[1])
        found.append((min(round(x / factor), width - side), min(round(y / factor), height - side)))
    return found[0], found[1]


def _area(title: str, a: Picture, b: Picture, corner: tuple[int, int]) -> Area:
    x, y = corner
    side = min(CLOSE, *a.size)
    inner = max(side // TIMES, 1)
    middle = (side - inner) // 2
    close = [_image(picture.window(y, y + side, x, x + side)) for picture in (a, b)]
    box = (middle, middle, middle + inner, middle + inner)
    closer = [image.crop(box).resize((TIMES * inner,) * 2, Image.Resampling.NEAREST) for image in close]
    words = ["before", "protected"]
    return Area(
        title,
        show(close, [f"{word}, 100 %" for word in words]),
        show(closer, [f"{word}, {TIMES}00 %" for word in words]),
        (side, TIMES * inner),
    )


def _pattern(a: Picture, b: Picture) -> str:
    width, height = a.size
    if width * height > MOST_PIXELS:
        return ""
    found = flat_pattern(a.rgb, b.rgb)
    if found.worst is None:
        return "No area of the picture is flat enough for a pattern to stand out."
    length = "" if found.wavelength is None else f", repeated every {found.wavelength:.0f} px"
    return (
        "The strongest regular pattern in flat areas has "
        f"{found.worst:.1f} times the contrast that is just noticed at arm's length{length}."
    )


def _image(rgb: Floats) -> Image.Image:
    return Image.fromarray((rgb.clip(0, 1) * 255).round().astype(np.uint8))
