"""Protected pixels: collected window by window at the file's own depth, and saved in the source's format.

    edit = Edit(picture, budget=8)
    for y0, y1, x0, x1 in tiles:
        edit.write(y0, x0, protect(picture.window(y0, y1, x0, x1)))
    save_picture(picture, edit, target)

Memory: one more copy of the file's integers. No float of the whole picture exists at any time.
"""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import PictureError, UsageError
from unlikeness.files import replacing
from unlikeness.pictures.colour import Floats, Pixels, apply, to_rgb
from unlikeness.pictures.formats.base import DAMAGE, to_upright
from unlikeness.pictures.memory import empty, let_go
from unlikeness.pictures.picture import Picture

__all__ = ["Edit", "save_picture"]

_BAND_PIXELS = 1 << 20
"""Pixels that are converted at a time, so that float copies stay small."""
_COPIED_PIXELS = 1 << 24
"""Pixels that are copied or compared at a time."""
_BAND_ROWS = 256


class Edit:
    """A copy of a picture's integers, into which windows of protected RGB are written.

    budget: None, or n meaning n/255. None truncates every change towards the original: no integer ends
    farther from it than the float was. With a budget, changes are rounded to nearest and held within n/255,
    which loses less of the perturbation. In both cases an unchanged pixel keeps its bits.
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

        rgb: h × w × 3 in [0, 1], float32 or a type that casts to it. Values outside are clipped. The change
        is taken against the *original* picture, so a second write to a window replaces the first.

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
        """What has been written so far as float32 RGB, like `Picture.window`: a lossless file's pixels."""
        return to_rgb(self._upright[y0:y1, x0:x1], self.picture.raster.model)

    @property
    def changed(self) -> bool:
        """Whether any integer differs from the original."""
        original = self.picture.raster.pixels
        return not all(np.array_equal(self.stored[rows], original[rows]) for rows in self._bands())

    def let_go(self) -> None:
        """Take the pixels of a very large picture and its copy out of memory until they are used again."""
        let_go(self.stored)
        self.picture.let_go()

    def _bands(self) -> Iterator[slice]:
        """The rows of the file, some at a time."""
        height, width = self.picture.raster.pixels.shape[:2]
        step = max(1, _COPIED_PIXELS // max(width, 1))
        return (slice(top, top + step) for top in range(0, height, step))


def save_picture(
    picture: Picture,
    pixels: Edit | NDArray[np.floating[Any]] | NDArray[np.uint8] | NDArray[np.uint16],
    path: str | os.PathLike[str],
    *,
    budget: float | None = None,
) -> None:
    """Write `picture` with other pixels to `path`. Keeps all that its format allows (see the formats).

    pixels: an `Edit` of this picture, or H × W × 3 upright RGB: float in [0, 1], uint8 (255ths) or uint16
    (65535ths). budget: as for `Edit`; only for arrays, since an Edit has its own.

    The file gets its name only when it is complete (a temporary file in the same folder is renamed), and a
    failure leaves nothing behind. The format is the source's, whatever the suffix. If no integer changed and
    the source is unchanged, its bytes are copied, so even a JPEG stays identical.

    UsageError if `path` is the source itself, also through links, or if the pixels do not fit; PictureError
    if the file cannot be written or encoded.
    """
    path = Path(path)
    if _same_file(path, picture.path):
        raise UsageError(f"{path} is the source itself, which is never written over; choose another folder")
    edit = pixels if isinstance(pixels, Edit) else _edit_of(picture, pixels, budget)
    if edit.picture is not picture:
        raise UsageError(
            f"the edit is of {edit.picture.path}, not {picture.path}; make one with Edit(picture)"
        )
    try:
        with replacing(path, settle=False) as part, part.open("x+b") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed = edit.changed
            edit.let_go()
            if changed or not _copy_source(picture, file):
                picture.raster.writer.write(edit.stored, file)
    except DAMAGE as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(
            f"{path}: it cannot be written ({' '.join(str(said).split())}); check the folder and free space"
        ) from error


def _edit_of(picture: Picture, pixels: NDArray[Any], budget: float | None) -> Edit:
    """An Edit that holds all of `pixels`, converted a few rows at a time."""
    width, height = picture.size
    if pixels.shape != (height, width, 3):
        raise UsageError(
            f"{picture.path} has {height} rows, {width} columns, but the pixels have the shape {pixels.shape}"
        )
    if pixels.dtype.kind != "f" and pixels.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"pixels are {pixels.dtype}, but they must be float in [0, 1], uint8 or uint16")
    top = np.float32(1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max)
    edit = Edit(picture, budget=budget)
    for y0 in range(0, height, _BAND_ROWS):
        band = pixels[y0 : y0 + _BAND_ROWS].astype(np.float32)
        edit.write(y0, 0, band if top == 1 else band / top)
    return edit


def _same_file(path: Path, source: Path) -> bool:
    """Whether both names lead to one file, through links of either kind or by spelling."""
    try:
        return path.samefile(source)
    except (OSError, ValueError):
        return os.path.realpath(path) == os.path.realpath(source)


def _copy_source(picture: Picture, target: Any) -> bool:
    """Copy the source's bytes if the file is unchanged since it was opened; False leaves `target` empty."""
    try:
        with picture.path.open("rb") as source:
            status = os.fstat(source.fileno())
            if (status.st_size, status.st_mtime_ns) != picture.stamp:
                return False
            shutil.copyfileobj(source, target)
    except OSError:
        target.seek(0)
        target.truncate()
        return False
    return True
