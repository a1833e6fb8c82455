"""TIFF as a container: directories of tags, read and written without interpreting them.

TIFF 6.0 (Adobe 1992), section 2, and BigTIFF for reading. A tag's value is kept as its bytes in the file's
own byte order, so whatever a program put there is written back as it was. Directories that a tag points to
(EXIF, GPS, interoperability) are read along. Offsets *inside* values, as some cameras' maker notes have them,
cannot be moved, as with any program that writes TIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from unlikeness.pictures.budget import spend
from unlikeness.pictures.formats.base import Unusable

__all__ = ["LAYERS", "Directory", "Order", "Tag", "numbers_tag", "read_directories", "write_directory"]

Order = Literal["<", ">"]

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_POINTERS = frozenset({34665, 34853, 40965})
_MAX_TAGS, _MAX_PAGES, _MAX_DEPTH = 4096, 64, 3
LAYERS = 37724
"""Photoshop's layers, often most of a file: that they are there is read, not what they are."""
_NUMBER_BYTES = 40
"""What a number of a tuple takes in memory."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry: its type's number, how many values, their bytes; or, for a pointer, the directory itself."""

    kind: int
    count: int
    value: bytes
    directory: Directory | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """Tags by number; `order` is "<" or ">", the byte order of all values."""

    order: Order
    tags: dict[int, Tag] = field(default_factory=dict)

    def numbers(self, number: int, default: Sequence[int] = ()) -> tuple[int, ...]:
        """A tag's whole numbers, or `default` where it is missing or holds something else."""
        tag = self.tags.get(number)
        if tag is None or tag.kind not in _NUMBERS:
            return tuple(default)
        spend(copied=_NUMBER_BYTES * tag.count)
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
    """What is no directory is read as one."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads each directory of a file once."""

    data: bytes
    order: Order
    big: bool
    seen: set[int] = field(default_factory=set)
    """Where directories begin that have been read, or are being read."""

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
                continue  # a value out of the file: what needs it will say so
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
        """The directory that a tag points to. Raises Unusable where it was read already."""
        (start,) = struct.unpack(self.order + _NUMBERS[kind], raw)
        if start in self.seen:
            raise Unusable("it is damaged (its directories lead in a circle); copy or export it again")
        return self.read(start, depth + 1)[0]


def write_directory(directory: Directory, target: BinaryIO) -> int:
    """Write a directory and all it points to at the end of `target`; the offset where it starts."""
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
    """Write at an even offset, which TIFF asks for; the offset."""
    at = target.tell()
    if at % 2:
        target.write(b"\0")
        at += 1
    target.write(data)
    return at
