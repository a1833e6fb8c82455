"""Protected pixels on their way to a file, collected window by window at the file's own depth.

    edit = Edit(picture, budget=8)
    for y0, y1, x0, x1 in tiles:
        edit.write(y0, x0, protect(picture.window(y0, y1, x0, x1)))
    save_picture(picture, edit, target)

Memory: one more copy of the file's integers. No float of the whole picture exists at any time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import UsageError
from unlikeness.pictures.colour import Floats, Pixels, apply, to_rgb
from unlikeness.pictures.orientation import to_upright
from unlikeness.pictures.paged import empty, let_go
from unlikeness.pictures.picture import Picture

__all__ = ["Edit"]

_BAND_PIXELS = 1 << 20
"""Pixels that are converted at a time, so that float copies stay small."""
_COPIED_PIXELS = 1 << 24
"""Pixels that are copied or compared at a time."""


class Edit:
    """A copy of a picture's integers that windows of protected RGB are written into.

    budget: None, or n meaning n/255. None truncates every change towards the original: no integer ends
    farther from it than the float was. With a budget, changes are rounded to nearest and held within n/255,
    which loses less of the perturbation. Either way a pixel that was not changed keeps its bits.
    """

    def __init__(self, picture: Picture, *, budget: float | None = None) -> None:
        if budget is not None and not (math.isfinite(budget) and budget >= 0):
            raise UsageError(f"budget is {budget}, but it must be 0 or more (in 255ths)")
        self.picture = picture
        self.budget = budget
        original = picture.raster.pixels
        self.stored: Pixels = empty(original.shape, original.dtype)
        """H × W × C in file order: what the file's writer takes."""
        for rows in self._bands():
            self.stored[rows] = original[rows]
            let_go(original)
            let_go(self.stored)
        self._upright = to_upright(self.stored, picture.orientation)

    def write(self, y0: int, x0: int, rgb: NDArray[np.floating[Any]]) -> None:
        """Set the window whose upper left corner is row y0, column x0 (upright) to `rgb`.

        rgb: h × w × 3, float32 (or anything that casts to it) in [0, 1]; values outside are clipped. The
        change is taken against the *original* picture, so writing a window again replaces it. Raises
        UsageError for another shape, a window outside the picture, or values that are not numbers.
        """
        width, height = self.picture.size
        if rgb.ndim != 3 or rgb.shape[2] != 3:
            raise UsageError(f"rgb has the shape {rgb.shape}, but rows × columns × 3 is needed")
        h, w = rgb.shape[:2]
        if y0 < 0 or x0 < 0 or y0 + h > height or x0 + w > width:
            raise UsageError(
                f"rgb of {h} rows, {w} columns at {y0}, {x0} does not fit a picture of {height} rows, "
                f"{width} columns"
            )
        step = max(1, _BAND_PIXELS // max(w, 1))
        for top in range(0, h, step):
            band = np.asarray(rgb[top : top + step], dtype=np.float32)
            if not np.isfinite(band).all():
                raise UsageError("rgb holds values that are not numbers; protect the picture again")
            place = np.s_[y0 + top : y0 + top + len(band), x0 : x0 + w]
            self._upright[place] = apply(
                self.picture.pixels[place], self.picture.raster.model, band, self.budget
            )

    def window(self, y0: int, y1: int, x0: int, x1: int) -> Floats:
        """What has been written so far as float32 RGB, like `Picture.window`: what a lossless file will
        hold.
        """
        return to_rgb(self._upright[y0:y1, x0:x1], self.picture.raster.model)

    @property
    def changed(self) -> bool:
        """Whether any integer differs from the original."""
        original = self.picture.raster.pixels
        return not all(np.array_equal(self.stored[rows], original[rows]) for rows in self._bands())

    def let_go(self) -> None:
        """Take the pixels of a very large picture and its copy out of memory, until they are used again."""
        let_go(self.stored)
        self.picture.let_go()

    def _bands(self) -> Iterator[slice]:
        """The rows of the file, some at a time."""
        height, width = self.picture.raster.pixels.shape[:2]
        step = max(1, _COPIED_PIXELS // max(width, 1))
        return (slice(top, top + step) for top in range(0, height, step))
