"""What every file format gives to the rest of the package: a raster, and how to write it again.

EXIF orientations are views: no pixel is copied. `stored` is the order of the rows in the file, `upright` the
picture as it is seen. Numbers are those of the EXIF tag 0x0112 (TIFF 6.0, page 36): 1 upright, 2 mirrored,
3 half a turn, 4 flipped, 5 transposed, 6 to be turned 90° clockwise, 7 transversed, 8 90° anticlockwise.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.limits import MAX_PIXELS, Unusable, grant_pixels
from unlikeness.pictures.memory import PAGED, empty, let_go

__all__ = [
    "ANIMATED", "DAMAGE", "Raster", "Unusable", "Writer", "check_size", "exif_orientation", "joined",
    "to_array", "to_pillow", "to_stored", "to_upright", "valid_orientation",
]  # fmt: skip

ANIMATED = "it is animated, and only still pictures can be protected; export its frames as pictures"
DAMAGE: tuple[type[Exception], ...] = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError,
    AssertionError, MemoryError, RuntimeError, BufferError, Image.DecompressionBombError, struct.error,
    zlib.error,
)  # fmt: skip
"""What decoders are known to raise for damaged files."""
S = TypeVar("S", bound=np.generic)

_BAND_PIXELS = 1 << 20
"""Pixels that exist twice while they go from an array to an image or back."""

if Image.MAX_IMAGE_PIXELS is not None:
    # Pillow refuses twice as many pixels. Every reader here checks the size itself before decoding.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2)


def to_upright(stored: NDArray[S], orientation: int) -> NDArray[S]:
    """H × W × C in file order -> the upright view of the same memory, writable where `stored` is."""
    a: NDArray[Any] = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in (3, 4, 7, 8):
        a = a[::-1]
    if orientation in (2, 3, 6, 7):
        a = a[:, ::-1]
    return a


def to_stored(upright: NDArray[S], orientation: int) -> NDArray[S]:
    """The inverse of `to_upright`: the two quarter turns undo each other, the rest undo themselves."""
    return to_upright(upright, {6: 8, 8: 6}.get(orientation, orientation))


class Writer(Protocol):
    """All that a file holds besides its pixels, and the way to write it with other pixels."""

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        """Write `pixels` (H × W × C, C-contiguous, file order, the raster's type) to a seekable `target`."""


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """A decoded file: its integers as they are stored, and what they mean."""

    pixels: Pixels
    model: ColourModel
    writer: Writer
    lossless: bool
    orientation: int = 1
    note: str | None = None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an empty picture or one over the bound, before decoding. Then grant what its pixels need.

    width, height: as in the header.
    """
    if width < 1 or height < 1:
        raise Unusable(f"it is {width} × {height} pixels, which is no picture; export it again")
    if width * height > max_pixels:
        raise Unusable(
            f"it has {width} × {height} = {width * height:,} pixels, over the bound of {max_pixels:,}; "
            "scale it down, or raise max_pixels where that can be set"
        )
    grant_pixels(width * height)


def exif_orientation(image: Image.Image) -> int:
    """The orientation that Pillow (and so any training script) reads from EXIF or XMP; 1 if unreadable."""
    try:
        return valid_orientation(image.getexif().get(0x0112, 1))
    except DAMAGE:
        return 1


def valid_orientation(value: object) -> int:
    """The orientation that a tag's value stands for; 1 for anything but 1 to 8, as in every viewer."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """An 8-bit Pillow image, decoded if need be -> H × W × C uint8, a band of rows at a time."""
    image.load()
    (width, height), channels = image.size, len(image.getbands())
    pixels: NDArray[np.uint8] = empty((height, width, channels), np.uint8)
    for y0, y1 in _bands(width, height):
        band = image if y1 - y0 == height else image.crop((0, y0, width, y1))
        pixels[y0:y1] = np.asarray(band, dtype=np.uint8).reshape(y1 - y0, width, channels)
        let_go(pixels)
    return pixels


def to_pillow(mode: str, pixels: Pixels) -> Image.Image:
    """H × W × C uint8 -> a Pillow image of `mode`, without an intermediate bytes object."""
    height, width = pixels.shape[:2]
    bands = list(_bands(width, height))
    if len(bands) == 1 or pixels.nbytes < PAGED:
        return Image.frombuffer(mode, (width, height), np.ascontiguousarray(pixels), "raw", mode, 0, 1)
    image = Image.new(mode, (width, height))
    for y0, y1 in bands:
        band = np.ascontiguousarray(pixels[y0:y1])
        image.paste(Image.frombuffer(mode, (width, y1 - y0), band, "raw", mode, 0, 1), (0, y0))
        let_go(pixels)
    return image


def _bands(width: int, height: int) -> Iterator[tuple[int, int]]:
    """First and last row of bands of about a megapixel."""
    step = max(1, _BAND_PIXELS // width)
    for y0 in range(0, height, step):
        yield y0, min(y0 + step, height)


def joined(*notes: str | None) -> str | None:
    """Notes as one, without those that are None."""
    return "; ".join(note for note in notes if note) or None
