"""A picture in memory: its file's own integers, RGB on demand, and the way to open it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unlikeness.errors import PictureError, UsageError, one_line
from unlikeness.pictures import guard
from unlikeness.pictures.colour import Floats, Pixels, to_rgb, top_of
from unlikeness.pictures.formats.base import Raster, to_upright
from unlikeness.pictures.limits import MAX_PIXELS, Unusable
from unlikeness.pictures.memory import let_go

__all__ = ["Picture", "open_picture"]


@dataclass(frozen=True, eq=False)
class Picture:
    """One photograph, opened by `open_picture`.

    It holds the decoded integers once (3 bytes a pixel for an 8-bit colour photograph) and no float. `window`
    gives a part as float32. `rgb` gives all of it and allocates 12 bytes a pixel at every access, so walk
    through a large picture by windows and collect them in an `Edit`.

    Colours are native: what a training script gets from Pillow's `convert("RGB")`. The ICC profile goes to
    the protected file unchanged and is not applied. Alpha is kept aside.
    """

    path: Path
    format: str
    """"JPEG", "PNG", "WEBP", "TIFF", "BMP", "HEIC" or "AVIF"."""
    raster: Raster
    stamp: tuple[int, int]
    """Size in bytes and time of change (ns) of the file when it was opened."""

    @cached_property
    def pixels(self) -> Pixels:
        """H × W × C, upright: a read-only view of the file's integers."""
        view = to_upright(self.raster.pixels, self.raster.orientation).view()
        view.flags.writeable = False
        return view

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright."""
        height, width = self.pixels.shape[:2]
        return width, height

    @property
    def lossless(self) -> bool:
        """Whether the format keeps every integer that it is given."""
        return self.raster.lossless

    @property
    def note(self) -> str | None:
        """What cannot be kept when this picture is written, in a few words; None if nothing is lost."""
        return self.raster.note

    @property
    def orientation(self) -> int:
        """The EXIF orientation in which the file is stored, 1 to 8."""
        return self.raster.orientation

    @property
    def depth(self) -> int:
        """Bits of a sample in memory: 8 or 16."""
        return 8 if top_of(self.raster.pixels) == 255 else 16

    @property
    def grey(self) -> bool:
        """Whether the file has one value a pixel."""
        return self.raster.model.space == "grey"

    @property
    def has_alpha(self) -> bool:
        """Whether the picture has an alpha channel."""
        return self.raster.model.alpha != "none"

    def let_go(self) -> None:
        """Take a very large picture's pixels out of memory until they are used again."""
        let_go(self.raster.pixels)

    @property
    def rgb(self) -> Floats:
        """H × W × 3 float32 in [0, 1], upright: a new array at every access."""
        width, height = self.size
        return self.window(0, height, 0, width)

    def window(self, y0: int, y1: int, x0: int, x1: int) -> Floats:
        """Rows y0 to y1 and columns x0 to x1 (ends excluded) of `rgb`. IndexError outside the picture."""
        width, height = self.size
        if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
            raise IndexError(f"window {y0}:{y1}, {x0}:{x1} is outside {height} rows, {width} columns")
        return to_rgb(self.pixels[y0:y1, x0:x1], self.raster.model)


def open_picture(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Open and decode one picture.

    Another process decodes it (`guard`), which is ended if it takes too long or needs too much memory.

    max_pixels: the largest width × height that is decoded, checked against the header before decoding.

    PictureError, one line with the file, the reason and the remedy, for a file that is missing, unreadable,
    empty, damaged, truncated, animated, of several pages, over the bound, or of no supported format. Also for
    one that takes too long or too much memory, or that needs an extra which is not installed. The file is
    always closed again.
    """
    if max_pixels < 1:
        raise UsageError(f"max_pixels is {max_pixels}, but it must be 1 or more")
    path = Path(path)
    try:
        decoded = guard.decode(path, max_pixels)
    except Unusable as reason:
        raise PictureError(one_line(f"{path}: {reason}")) from reason
    return Picture(path, decoded.format, decoded.raster, decoded.stamp)
