"""Opening pictures: one way in for all formats, and one clear line for everything that is not one."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from unlikeness.bounds import MAX_PIXELS
from unlikeness.errors import PictureError, UsageError, one_line
from unlikeness.pictures import guard
from unlikeness.pictures.budget import Budget
from unlikeness.pictures.formats.base import DAMAGE, Raster
from unlikeness.pictures.kinds import HEAD, SUPPORTED, announced
from unlikeness.pictures.limits import TOO_LARGE
from unlikeness.pictures.picture import Picture
from unlikeness.pictures.unusable import Unusable

__all__ = ["Decoded", "decode_file", "format_of", "most_bytes", "open_picture"]

_BYTES_PER_PIXEL = 16
"""A file larger than this for each pixel of the bound (and `_SMALLEST_BOUND`) is not read into memory."""
_SMALLEST_BOUND = 64 << 20
_WHOLE = 256 << 20
"""Bytes of a file from which on its header is looked at before all of it is read."""
_BYTES_PER_LAYERED = 64
"""A TIFF file may hold layers beside its picture."""
_HEADED = ("JPEG", "PNG", "TIFF", "BMP")
"""Formats that can be so large, by Pillow's names."""

_FORMATS = SUPPORTED | {"TIFF", "BMP"}
_HEIF_BRANDS = {
    "AVIF": {b"avif", b"avis"},
    "HEIC": {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"},
}


def format_of(head: bytes) -> str | None:
    """The format that a file's first bytes (at least 64, or all there are) announce: a key of the format
    table, "GIF", or None for none that is known. The file's name plays no part.
    """
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:2] == b"BM":
        return "BMP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12]} | {head[i : i + 4] for i in range(16, length, 4)}
        return next((name for name, known in _HEIF_BRANDS.items() if brands & known), None)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What a file holds: the name of its format, its raster, its size in bytes and its time of change."""

    format: str
    raster: Raster
    stamp: tuple[int, int]


def open_picture(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Open and decode one picture. See `Picture` for what is in it.

    It is decoded in another process (`guard`), which is ended if it takes too long or needs too much memory.

    max_pixels: the largest width × height that is decoded, checked against the header before decoding.

    Raises PictureError, one line that names the file, the reason and the remedy, for a file that is missing,
    unreadable, empty, damaged, truncated, animated or of several pages, over the bound, of no supported
    format, that takes too long or too much memory, or that needs an extra which is not installed. The file is
    closed again in every case.
    """
    if max_pixels < 1:
        raise UsageError(f"max_pixels is {max_pixels}, but it must be 1 or more")
    path = Path(path)
    try:
        decoded = guard.decode(path, max_pixels)
    except Unusable as reason:
        raise PictureError(one_line(f"{path}: {reason}")) from reason
    return Picture(path, decoded.format, decoded.raster, decoded.stamp)


def decode_file(path: Path, max_pixels: int, budget: Callable[[int], Budget] = Budget) -> Decoded:
    """Read and decode a file in this process. Raises Unusable, with reason and remedy, if it cannot be used.

    budget: what the reading of a file of so many bytes may cost.
    """
    data, stamp, cost = _load(path, max_pixels, budget)
    kind = _kind(data)
    try:
        read = _reader(kind)
        with warnings.catch_warnings(), cost.active():
            warnings.simplefilter("ignore")
            raster = read(data, max_pixels)
    except Unusable:
        raise
    except MemoryError as error:
        raise Unusable(TOO_LARGE) from error
    except Image.DecompressionBombError as error:
        raise Unusable(
            "it is larger than Pillow unpacks in one piece; scale it down or save it as PNG"
        ) from error
    except DAMAGE as error:
        # Only what a decoder says is worth telling; an index out of range is not.
        told = isinstance(error, (OSError, SyntaxError, ValueError, RuntimeError)) and str(error)
        said = f" ({error})" if told else ""
        raise Unusable(
            f"it is damaged or truncated{said}; copy it again, or open and export it elsewhere"
        ) from error
    return Decoded(str(kind), raster, stamp)


def _kind(data: bytes) -> str | None:
    """Its format; or the kind of a picture that cannot be protected, also in the guise of another."""
    told = announced(data[:HEAD])
    return told if told and told not in SUPPORTED else format_of(data[:4096])


def most_bytes(max_pixels: int) -> int:
    """The size of a file, in bytes, above which it is refused without being read."""
    return max(_SMALLEST_BOUND, max_pixels * _BYTES_PER_PIXEL)


def _check_worth(file: BinaryIO, size: int) -> None:
    """Refuse a very large file of a small picture before it is read: it would cost more memory than its
    pixels. Raises Unusable.
    """
    try:
        with Image.open(file, formats=_HEADED) as image:
            (width, height), layered = image.size, image.format == "TIFF"
    except DAMAGE as error:
        raise Unusable(f"its {size:,} bytes are no picture of that size; export it again") from error
    if size > width * height * (_BYTES_PER_LAYERED if layered else _BYTES_PER_PIXEL):
        raise Unusable(f"its {size:,} bytes are too many for {width} × {height} pixels; export it again")
    file.seek(0)


def _reader(kind: str | None) -> Callable[[bytes, int], Raster]:
    """The `read` of a format's module, loaded at its first use. Raises Unusable where there is none."""
    if kind is None:
        raise Unusable(
            "it is no JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF picture; convert it to one of these"
        )
    if kind == "GIF":
        raise Unusable("GIF holds 256 colours or an animation, which cannot be protected; convert it to PNG")
    if kind not in _FORMATS:
        raise Unusable(f"{kind} files cannot be protected; export it as JPEG, PNG or TIFF first")
    module = import_module(f"unlikeness.pictures.formats.{kind.lower()}")
    read: Callable[[bytes, int], Raster] = module.read
    return read


def _load(
    path: Path, max_pixels: int, budget: Callable[[int], Budget]
) -> tuple[bytes, tuple[int, int], Budget]:
    """The file's bytes, its size and its time of change, and its budget. Never blocks on a pipe or reads a
    file without bound.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unusable("it is not a file; name a picture or a folder of pictures")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                raise Unusable("the file is empty; copy or export it again")
            if status.st_size > most_bytes(max_pixels):
                reason = f"its {status.st_size:,} bytes are too many for max_pixels {max_pixels:,}"
                raise Unusable(f"{reason}; scale it down, or raise max_pixels where that can be set")
            if status.st_size > _WHOLE:
                _check_worth(file, status.st_size)
            cost = budget(status.st_size)
            return file.read(status.st_size), (status.st_size, status.st_mtime_ns), cost
    except OSError as error:
        raise Unusable(f"it cannot be read ({error.strerror}); check the name and its permissions") from error
    except ValueError as error:  # a name with a null character
        raise Unusable(f"it cannot be read ({error}); check the name") from error
