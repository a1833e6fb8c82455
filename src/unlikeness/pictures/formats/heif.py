"""HEIC and AVIF as a container: boxes, items, their properties and references; and checks of their data.

ISO/IEC 14496-12 (boxes, `iloc`, `iinf`, `pitm`, `iref`) and 23008-12 (`iprp`). Only what is needed to keep
what the encoders of Pillow and libheif do not, and to note what is left out.

Decoders draw something in place of coded data that was overwritten, so `check_coded` looks for it. HEVC never
has two zeros before a byte below three within a unit, as such a byte would begin the next one (H.265, 7.4.2).
AV1 has no such rule, but adapts to what is frequent, so that long rows of zeros do not arise.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from unlikeness.pictures.limits import Unusable, spend

__all__ = ["Box", "Container", "boxes", "check_coded", "read_container"]

_NONSENSE = "it is damaged (its boxes make no sense); copy or export it again"
_OVERWRITTEN = "it is damaged (part of its data is zeros); copy it again, or export it elsewhere"
_FORBIDDEN = re.compile(rb"\0\0[\0-\2]")
_ZEROS = bytes(512)


class Box(NamedTuple):
    """A box: its kind, and the places in the file of itself, its body and its end."""

    kind: bytes
    start: int
    body: int
    end: int


class Extent(NamedTuple):
    """A part of an item's data: its place and bytes, and the place in the file of these two numbers."""

    offset: int
    length: int
    place: int


class Location(NamedTuple):
    """The place of an item's data, from the start of the file (method 0) or of `idat` (1)."""

    method: int
    base: int
    extents: tuple[Extent, ...]
    widths: tuple[int, int]
    """Bytes of the two numbers of an extent."""


class Item(NamedTuple):
    """An entry of `iinf`, with the numbers of its properties, counted from 1."""

    kind: bytes
    content: bytes
    """The media type of an item of the kind "mime"."""
    properties: tuple[int, ...] = ()


@dataclass(frozen=True)
class Container:
    """A file's boxes and items. references: (kind, from, to) with items' numbers."""

    data: bytes
    top: list[Box]
    meta: list[Box]
    items: dict[int, Item]
    locations: dict[int, Location]
    properties: list[Box]
    primary: int
    references: list[tuple[bytes, int, int]]
    trailing: bool
    """Whether something that is no box follows the last one."""

    def raw(self, box: Box) -> bytes:
        """A whole box."""
        return self.data[box.start : box.end]

    def properties_of(self, item: int) -> list[Box]:
        """An item's property boxes in the order of their association."""
        numbers = self.items[item].properties if item in self.items else ()
        return [self.properties[n - 1] for n in numbers if 0 < n <= len(self.properties)]

    def content(self, item: int) -> bytes:
        """An item's data, joined; empty if it is not in this file."""
        location = self.locations.get(item)
        if location is None or location.method not in (0, 1):
            return b""
        base, end = 0, len(self.data)
        if location.method == 1:
            inside = next((box for box in self.meta if box.kind == b"idat"), None)
            if inside is None:
                return b""
            base, end = inside.body, inside.end
        if sum(extent.length for extent in location.extents) > len(self.data):
            raise Unusable(_NONSENSE)
        spend(copied=sum(extent.length or len(self.data) for extent in location.extents))
        parts = ((base + location.base + x.offset, x.length) for x in location.extents)
        return b"".join(
            self.data[at : min(at + length, end)] if length else self.data[at:end] for at, length in parts
        )

    def parts_of_primary(self) -> list[int]:
        """The items from which the primary picture is put together, if any."""
        return [b for kind, a, b in self.references if kind == b"dimg" and a == self.primary]

    def about_primary(self, kind: bytes, content: bytes = b"") -> list[int]:
        """The items of a kind that describe the primary picture, or that name no picture."""
        named = {a for name, a, _ in self.references if name == b"cdsc"}
        ours = {a for name, a, b in self.references if name == b"cdsc" and b == self.primary}
        return [
            number
            for number, item in self.items.items()
            if item.kind == kind and item.content == content and (number in ours or number not in named)
        ]


def boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places, up to the first that is cut off."""
    while start + 8 <= end:
        spend(entries=1)
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            body = start + 16
        elif size == 0 and any(kind):
            size = end - start
        if size < body - start or start + size > end:
            return
        yield Box(kind, start, body, start + size)
        start += size


def read_container(data: bytes) -> Container:
    """Read a file. Raises Unusable if its boxes make no sense or it has no picture."""
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as error:
        raise Unusable(_NONSENSE) from error


def _read(data: bytes) -> Container:
    top = list(boxes(data, 0, len(data)))
    meta = next((box for box in top if box.kind == b"meta"), None)
    if meta is None:
        raise Unusable("it is damaged (it has no picture); copy or export it again")
    inside = list(boxes(data, meta.body + 4, meta.end))
    by_kind = {box.kind: box for box in reversed(inside)}
    primary, iprp = by_kind.get(b"pitm"), by_kind.get(b"iprp")
    properties: list[Box] = []
    associated: dict[int, tuple[int, ...]] = {}
    for box in boxes(data, iprp.body, iprp.end) if iprp else ():
        if box.kind == b"ipco":
            properties = list(boxes(data, box.body, box.end))
        elif box.kind == b"ipma":
            associated |= _associations(data, box)
    return Container(
        data,
        top,
        inside,
        dict(_items(data, by_kind[b"iinf"], associated)) if b"iinf" in by_kind else {},
        dict(_locations(data, by_kind[b"iloc"])) if b"iloc" in by_kind else {},
        properties,
        _Cursor(data, primary.body + 4).take(4 if data[primary.body] else 2) if primary else 0,
        list(_references(data, by_kind[b"iref"])) if b"iref" in by_kind else [],
        any(data[top[-1].end : top[-1].end + 4096].strip(b"\0")),
    )


class _Cursor:
    """Numbers of a few bytes, one after the other. ValueError at the end of the data."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> int:
        if self.at + size > len(self.data):
            raise ValueError
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "big")


def _items(data: bytes, box: Box, associated: dict[int, tuple[int, ...]]) -> Iterator[tuple[int, Item]]:
    head = 4 + (4 if data[box.body] else 2)
    for entry in boxes(data, box.body + head, box.end):
        version, cursor = data[entry.body], _Cursor(data, entry.body + 4)
        number = cursor.take(4 if version == 3 else 2)
        at = cursor.at + 2
        kind, content = b"mime", b""
        if version >= 2:
            kind, at = data[at : at + 4], at + 4
        if kind == b"mime":
            content = [*data[at : entry.end].split(b"\0", 2), b""][1]
        yield number, Item(kind, content, associated.get(number, ()))


def _locations(data: bytes, box: Box) -> Iterator[tuple[int, Location]]:
    version, cursor = data[box.body], _Cursor(data, box.body + 4)
    sizes = cursor.take(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    index = index if version else 0
    wide = 4 if version == 2 else 2
    for _ in range(cursor.take(wide)):
        number = cursor.take(wide)
        method = cursor.take(2) & 15 if version else 0
        cursor.take(2)  # the file of its data
        start, count = cursor.take(base), cursor.take(2)
        spend(entries=1 + count)
        if cursor.at + count * (index + offset + length) > box.end:
            raise ValueError
        extents = []
        for _ in range(count):
            cursor.take(index)
            place = cursor.at
            extents.append(Extent(cursor.take(offset), cursor.take(length), place))
        yield number, Location(method, start, tuple(extents), (offset, length))


def _associations(data: bytes, box: Box) -> dict[int, tuple[int, ...]]:
    size, step = 4 if data[box.body] else 2, 2 if data[box.body + 3] & 1 else 1
    cursor = _Cursor(data, box.body + 4)
    found = {}
    for _ in range(cursor.take(4)):
        item, count = cursor.take(size), cursor.take(1)
        spend(entries=1 + count)
        found[item] = tuple(cursor.take(step) & (0x7FFF if step == 2 else 0x7F) for _ in range(count))
    return found


def _references(data: bytes, box: Box) -> Iterator[tuple[bytes, int, int]]:
    size = 4 if data[box.body] else 2
    for entry in boxes(data, box.body + 4, box.end):
        cursor = _Cursor(data, entry.body)
        source, count = cursor.take(size), cursor.take(2)
        spend(entries=count)
        yield from ((entry.kind, source, cursor.take(size)) for _ in range(count))


def check_coded(container: Container) -> None:
    """Check the data of the primary picture and of its parts. Raises Unusable."""
    for number in (container.primary, *dict.fromkeys(container.parts_of_primary())):
        item = container.items.get(number)
        if item is not None and item.kind == b"hvc1":
            _check_units(container.content(number), _length_bytes(container, number))
        elif item is not None and item.kind == b"av01":
            coded = container.content(number)
            place = coded.find(_ZEROS)
            if place >= 0 and coded[place:].strip(b"\0"):
                raise Unusable(_OVERWRITTEN)


def _length_bytes(container: Container, number: int) -> int:
    """Bytes of the length before each unit (14496-15, 8.3.3.1)."""
    for box in container.properties_of(number):
        if box.kind == b"hvcC" and box.body + 21 < box.end:
            return 1 + (container.data[box.body + 21] & 3)
    return 4


def _check_units(coded: bytes, width: int) -> None:
    at = 0
    while at + width < len(coded):
        end = at + width + int.from_bytes(coded[at : at + width], "big")
        unit = coded[at + width : end].rstrip(b"\0")
        if end > len(coded) or _FORBIDDEN.search(unit):
            raise Unusable(_OVERWRITTEN)
        at = end
