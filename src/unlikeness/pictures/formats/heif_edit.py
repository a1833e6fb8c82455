"""What the encoders of Pillow and libheif do not write into a HEIC or AVIF file, set afterwards.

The pictures that are changed here come from these encoders: one `meta` box, whose data is in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from unlikeness.pictures.formats.heif_container import Box, Container, boxes, read_container

__all__ = ["with_item", "with_properties"]

_TURNS = (b"irot", b"imir")


def with_item(coded: bytes, kind: bytes, content: bytes) -> bytes:
    """A file whose only item of a kind holds `content`: as it is if it does already, else with it behind all
    else.
    """
    container = read_container(coded)
    (number,) = [n for n, item in container.items.items() if item.kind == kind]
    if container.content(number) == content:
        return coded
    location = container.locations[number]
    if location.method or len(location.extents) != 1:
        raise OSError("the encoder laid the file out in an unknown way")
    (extent,) = location.extents
    result = bytearray(coded)
    start = location.base + extent.offset
    result[start : start + extent.length] = bytes(extent.length)
    offset, length = location.widths
    place = len(coded) + 8 - location.base
    numbers = place.to_bytes(offset, "big") + len(content).to_bytes(length, "big")
    result[extent.place : extent.place + len(numbers)] = numbers
    return bytes(result) + struct.pack(">I4s", 8 + len(content), b"mdat") + content


def with_properties(coded: bytes, properties: Sequence[bytes], crop: bytes | None = None) -> bytes:
    """A file whose primary picture has more properties. Each is a whole box; descriptions come first, and a
    crop (`clap`) before the turns, as the standard wants it (23008-12, 6.5.1).
    """
    added = [*properties, crop] if crop else list(properties)
    if not added:
        return coded
    container = read_container(coded)
    iprp = next(box for box in container.meta if box.kind == b"iprp")
    inside = list(boxes(coded, iprp.body, iprp.end))
    ipco, ipma = (next(box for box in inside if box.kind == kind) for kind in (b"ipco", b"ipma"))
    first = len(container.properties) + 1
    entry = _associated(coded, container, ipma, first, len(properties), crop is not None)
    stored = b"".join(added)
    grown = len(stored) + len(entry) - (ipma.end - ipma.body)
    result = bytearray(coded)
    meta = next(box for box in container.top if box.kind == b"meta")
    _move_data(result, container, meta.end, grown)
    for box, more in ((meta, grown), (iprp, grown), (ipco, len(stored))):
        _resize(result, box, more)
    result[ipma.start : ipma.end] = struct.pack(">I4s", 8 + len(entry), b"ipma") + entry
    result[ipco.end : ipco.end] = stored
    return bytes(result)


def _associated(
    coded: bytes, container: Container, ipma: Box, first: int, descriptions: int, crop: bool
) -> bytes:
    """The body of `ipma` with properties from number `first` on associated with the primary picture."""
    wide, size = coded[ipma.body + 3] & 1, 4 if coded[ipma.body] else 2
    step = 2 if wide else 1
    essential = 0x8000 if wide else 0x80
    if first + descriptions + crop > essential:
        raise OSError("the encoder wrote too many properties")
    (count,) = struct.unpack_from(">I", coded, ipma.body + 4)
    result, at = bytearray(coded[ipma.body : ipma.body + 8]), ipma.body + 8
    for _ in range(count):
        item, number = int.from_bytes(coded[at : at + size], "big"), coded[at + size]
        start, at = at + size + 1, at + size + 1 + step * number
        values = [int.from_bytes(coded[i : i + step], "big") for i in range(start, at, step)]
        if item == container.primary:
            kinds = [container.properties[(value & (essential - 1)) - 1].kind for value in values]
            turn = next((i for i, kind in enumerate(kinds) if kind in _TURNS), len(values))
            cropped = [first + descriptions | essential] if crop else []
            values = [*range(first, first + descriptions), *values[:turn], *cropped, *values[turn:]]
        result += item.to_bytes(size, "big") + bytes([len(values)])
        result += b"".join(value.to_bytes(step, "big") for value in values)
    return bytes(result)


def _move_data(result: bytearray, container: Container, meta_end: int, by: int) -> None:
    """Tell where the items' data is after `meta` has grown."""
    for location in container.locations.values():
        width = location.widths[0]
        for extent in location.extents:
            if location.method == 0 and location.base + extent.offset >= meta_end:
                result[extent.place : extent.place + width] = (extent.offset + by).to_bytes(width, "big")


def _resize(result: bytearray, box: Box, more: int) -> None:
    if box.body != box.start + 8:
        raise OSError("the encoder laid the file out in an unknown way")
    result[box.start : box.start + 4] = struct.pack(">I", box.end - box.start + more)
