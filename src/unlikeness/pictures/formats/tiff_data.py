"""TIFF as a container and its pixels as bytes: directories of tags, strips and tiles.

TIFF 6.0 (Adobe 1992), section 2, and BigTIFF for reading. A tag's value is kept as its bytes in the file's
own byte order, so that it is written back unchanged. Directories that a tag points to (EXIF, GPS,
interoperability) are read too. Offsets *inside* values, as in some cameras' maker notes, cannot be moved; no
program that writes TIFF can.

Pillow turns 16-bit colour into 8 bits, but libtiff's lossless schemes work on any bytes. So strips are
wrapped in a small TIFF file in memory that declares 8-bit grey rows as wide as the real rows have bytes. What
comes out (or goes in) is exactly the byte stream, for any sample size, channel count and byte order.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from unlikeness.pictures.colour import Pixels
from unlikeness.pictures.formats.metadata import NUMBER_BYTES
from unlikeness.pictures.limits import Unusable, spend
from unlikeness.pictures.memory import empty, let_go

__all__ = [
    "DEFLATE", "LAYERS", "LOSSLESS", "Directory", "Order", "Tag", "check_overlap", "is_predicted",
    "numbers_tag", "pack", "quiet", "read_directories", "read_samples", "write_directory",
]  # fmt: skip

Order = Literal["<", ">"]
Bytes = NDArray[np.uint8]

_SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8
}  # fmt: skip
"""Bytes of a value, by the number of its type."""
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_POINTERS = frozenset({34665, 34853, 40965})
_MAX_TAGS, _MAX_PAGES, _MAX_DEPTH = 4096, 64, 3
LAYERS = 37724
"""Photoshop's layers, often most of a file: their presence is read, not their content."""

NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
LOSSLESS = frozenset({NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD})
_NAMES = {LZW: "tiff_lzw", PACKBITS: "packbits", LZMA: "lzma", ZSTD: "zstd"}
_PREDICTING = LOSSLESS - {NONE, PACKBITS}
_STEP = 1 << 16
_BAND_BYTES = 1 << 24
_SHARED = 16 << 20
"""Bytes that may be used more than once: some programs store equal tiles once."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry: number of its type, number of values, their bytes; for a pointer, the directory itself."""

    kind: int
    count: int
    value: bytes
    directory: Directory | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """Tags by number. order: "<" or ">", the byte order of all values."""

    order: Order
    tags: dict[int, Tag] = field(default_factory=dict)

    def numbers(self, number: int, default: Sequence[int] = ()) -> tuple[int, ...]:
        """A tag's whole numbers, or `default` if it is missing or holds something else."""
        tag = self.tags.get(number)
        if tag is None or tag.kind not in _NUMBERS:
            return tuple(default)
        spend(copied=NUMBER_BYTES * tag.count)
        return struct.unpack(f"{self.order}{tag.count}{_NUMBERS[tag.kind]}", tag.value)

    def number(self, number: int, default: int) -> int:
        """A tag's first whole number."""
        tag = self.tags.get(number)
        if tag is None or tag.kind not in _NUMBERS or not tag.count:
            return default
        return int(struct.unpack_from(self.order + _NUMBERS[tag.kind], tag.value)[0])


def numbers_tag(order: Order, values: Sequence[int], *, short: bool = False) -> Tag:
    """A tag of SHORT or LONG values."""
    code = "H" if short else "I"
    return Tag(3 if short else 4, len(values), struct.pack(f"{order}{len(values)}{code}", *values))


def read_directories(data: bytes) -> list[Directory]:
    """The directories of all pages, in order. Raises Unusable at damaged ones."""
    order: Order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        (at,) = struct.unpack_from(order + "Q", data, 8) if big else struct.unpack_from(order + "I", data, 4)
        pages: list[Directory] = []
        reader = _Reader(data, order, big)
        while at and at not in reader.seen and len(pages) < _MAX_PAGES:
            directory, at = reader.read(at, 0)
            pages.append(directory)
    except struct.error as error:
        raise Unusable(
            "it is truncated or damaged (its directory is cut off); copy or export it again"
        ) from error
    return pages


class _Senseless(Unusable):
    """Bytes that are no directory were read as one."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads each directory of a file once."""

    data: bytes
    order: Order
    big: bool
    seen: set[int] = field(default_factory=set)
    """Places of directories that were read, or are being read."""

    def read(self, at: int, depth: int) -> tuple[Directory, int]:
        """The directory at `at` and the offset of the next one."""
        self.seen.add(at)
        data, order, big = self.data, self.order, self.big
        count_code, entry_code, inline = ("Q", "HHQ8s", 8) if big else ("H", "HHI4s", 4)
        (count,) = struct.unpack_from(order + count_code, data, at)
        at += struct.calcsize(order + count_code)
        if count > _MAX_TAGS:
            raise _Senseless("it is damaged (its directory makes no sense); copy or export it again")
        directory = Directory(order)
        for _ in range(count):
            number, kind, values, raw = struct.unpack_from(order + entry_code, data, at)
            at += struct.calcsize(order + entry_code)
            size = _SIZES.get(kind, 0) * values
            if size > inline:
                (start,) = struct.unpack(order + ("Q" if big else "I"), raw)
                raw = b"" if number == LAYERS else data[start : start + size]
            spend(entries=1, copied=len(raw))
            if number == LAYERS:
                kind, values, size = 7, 0, 0
            if kind not in _SIZES or len(raw) < size:
                continue  # its value lies outside the file
            sub = None
            if number in _POINTERS and depth < _MAX_DEPTH and kind in _NUMBERS and values == 1:
                try:
                    sub = self._pointed(raw[:size], kind, depth)
                except (struct.error, _Senseless):
                    continue
            directory.tags[number] = Tag(kind, values, raw[:size], sub)
        (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, at) if at < len(data) else (0,)
        return directory, following

    def _pointed(self, raw: bytes, kind: int, depth: int) -> Directory:
        """The directory that a tag points to. Raises Unusable if it was read before."""
        (start,) = struct.unpack(self.order + _NUMBERS[kind], raw)
        if start in self.seen:
            raise Unusable("it is damaged (its directories lead in a circle); copy or export it again")
        return self.read(start, depth + 1)[0]


def write_directory(directory: Directory, target: BinaryIO) -> int:
    """Write a directory and all it points to at the end of `target`; returns its offset."""
    order = directory.order
    entries = b""
    for number in sorted(directory.tags):
        tag = directory.tags[number]
        if tag.directory is not None:
            tag = numbers_tag(order, [write_directory(tag.directory, target)])
        value = tag.value
        if len(value) > 4:
            value = struct.pack(order + "I", _append(target, value))
        entries += struct.pack(order + "HHI4s", number, tag.kind, tag.count, value)
    return _append(target, struct.pack(order + "H", len(directory.tags)) + entries + b"\0\0\0\0")


def _append(target: BinaryIO, data: bytes) -> int:
    """Write at an even offset, as TIFF asks; returns the offset."""
    at = target.tell()
    if at % 2:
        target.write(b"\0")
        at += 1
    target.write(data)
    return at


def read_samples(data: bytes, page: Directory, channels: int, bits: int) -> Pixels:
    """H × W × `channels`, uint8 or uint16 in native byte order, prediction undone.

    page: a directory with a lossless compression, and with 8 or 16 `bits` in every sample. Strips and tiles
    are treated alike: boxes of whole rows or of a fixed size, in reading order. Separate planes have them
    once a channel (TIFF 6.0, sections 3, 14 and 15; tag 284). Raises Unusable if they do not cover
    the picture.
    """
    width, height = page.number(256, 0), page.number(257, 0)
    tiled = 324 in page.tags
    box_width = page.number(322, 0) if tiled else width
    box_height = page.number(323, 0) if tiled else min(page.number(278, height), height)
    starts = page.numbers(324 if tiled else 273)
    sizes = page.numbers(325 if tiled else 279)
    planar = page.number(284, 1) == 2 and channels > 1
    if box_width < 1 or box_height < 1 or box_width * box_height > 16 * (width * height + (1 << 20)):
        raise Unusable("it is damaged (its tiles make no sense); copy or export it again")
    across, down = -(-width // box_width), -(-height // box_height)
    planes = channels if planar else 1
    if not sizes and page.number(259, 1) == 1 and len(starts) == 1:
        sizes = (len(data) - starts[0],)
    if len(starts) < across * down * planes or len(sizes) < len(starts):
        raise Unusable("it is damaged (pixels are missing); copy or export it again")
    dtype = np.dtype(f"u{bits // 8}")
    depth = 1 if planar else channels
    pixels: Pixels = empty((height, width, channels), dtype)
    source = memoryview(data)
    predicted = is_predicted(page)
    index = 0
    for plane in range(planes):
        into = pixels[..., plane : plane + 1] if planar else pixels
        for y in range(0, down * box_height, box_height):
            for x in range(0, across * box_width, box_width):
                rows = box_height if tiled else min(box_height, height - y)
                part = source[starts[index] : starts[index] + sizes[index]]
                raw = _unpack(part, rows, box_width * depth * (bits // 8), page.number(259, 1))
                # A strip may be the whole picture: some rows at a time are turned into samples.
                step = max(1, _BAND_BYTES // raw.shape[1])
                seen = min(rows, height - y)
                for top in range(0, seen, step):
                    end = min(top + step, seen)
                    box = _samples(raw[top:end], dtype, page.order, depth, predicted)
                    into[y + top : y + end, x : x + box_width] = box[:, : width - x]
                    let_go(pixels)
                index += 1
    return pixels


def check_overlap(data: bytes, page: Directory) -> None:
    """Refuse strips or tiles that use the same bytes again and again, before any is decoded."""
    for starts, sizes in ((273, 279), (324, 325)):
        extents = zip(page.numbers(starts), page.numbers(sizes), strict=False)
        if sum(max(min(size, len(data) - at), 0) for at, size in extents) > 2 * len(data) + _SHARED:
            raise Unusable("it is damaged (its strips or tiles overlap); copy or export it again")


def is_predicted(page: Directory) -> bool:
    """Whether samples are stored as differences (tag 317). It counts only with LZW and later compressions:
    libtiff, and so Pillow, ignore it for others.
    """
    return page.number(317, 1) == 2 and page.number(259, 1) in _PREDICTING


def _samples(raw: Bytes, dtype: np.dtype[Any], order: Order, depth: int, predicted: bool) -> Pixels:
    """Rows of bytes -> rows × columns × depth. Prediction 2 stores differences to the left neighbour, modulo
    2^bits (TIFF 6.0, section 14).
    """
    stored = np.ascontiguousarray(raw).view(dtype.newbyteorder(order))
    values = stored.astype(dtype).reshape(len(raw), -1, depth)
    return np.cumsum(values, axis=1, dtype=dtype) if predicted else values


def _unpack(part: bytes | memoryview, rows: int, width: int, compression: int) -> Bytes:
    """One compressed strip or tile -> rows × width bytes. Raises Unusable if there are too few."""
    need = rows * width
    if compression == NONE:
        raw: bytes | memoryview = part
    elif compression in (DEFLATE, OLD_DEFLATE):
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(part, need)
        left = need
        while not unpacker.eof and unpacker.unconsumed_tail and left > 0:
            # On to the checksum, which zlib compares; some programs fill the last strip up.
            left -= len(unpacker.decompress(unpacker.unconsumed_tail, _STEP)) or _STEP
    else:
        raw = _by_libtiff(part, rows, width, compression)
    if len(raw) < need:
        raise Unusable("it is truncated or damaged (too few pixels); copy or export it again")
    return np.frombuffer(raw, np.uint8, need).reshape(rows, width)


def _by_libtiff(part: bytes | memoryview, rows: int, width: int, compression: int) -> bytes:
    file = io.BytesIO()
    file.write(b"II*\0\0\0\0\0" + part)
    tags = {
        256: width, 257: rows, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: rows, 279: len(part)
    }  # fmt: skip
    directory = Directory("<", {number: numbers_tag("<", [value]) for number, value in tags.items()})
    at = write_directory(directory, file)
    file.seek(4)
    file.write(struct.pack("<I", at))
    file.seek(0)
    with quiet():
        return TiffImageFile(file).tobytes()


def pack(rows: Bytes, compression: int) -> bytes:
    """(rows, bytes a row) -> one compressed strip. `compression` is one of LOSSLESS."""
    if compression == NONE:
        return rows.tobytes()
    if compression in (DEFLATE, OLD_DEFLATE):
        return zlib.compress(rows.tobytes())
    height, width = rows.shape
    buffer = io.BytesIO()
    image = Image.frombuffer("L", (width, height), np.ascontiguousarray(rows), "raw", "L", 0, 1)
    image.save(buffer, "TIFF", compression=_NAMES[compression], tiffinfo={278: height, 317: 1})
    data = buffer.getvalue()
    page = read_directories(data)[0]
    starts, sizes = page.numbers(273), page.numbers(279)
    if len(starts) != 1:
        raise OSError("libtiff did not write one strip")
    return data[starts[0] : starts[0] + sizes[0]]


_one_at_a_time = Lock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send file descriptor 2 to nowhere during a short call: libtiff reports damaged data there, past Python.

    One thread at a time, so that each restores what it found. Without such a descriptor nothing is done.
    """
    with _one_at_a_time:
        try:
            kept = os.dup(2)
        except OSError:
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
