"""Small copies of a picture inside its own metadata, taken out: they would show it unprotected.

EXIF is full of offsets, and maker notes hide some that nobody can move. So its thumbnail is taken out in
place: the link to the thumbnail's directory and the thumbnail's bytes become zeros, and nothing else changes
(Exif 3.0, section 4.5: the first directory's link leads to the thumbnail's). Photoshop's image resources
("8BIM" blocks, one after the other) hold no offsets: those of a thumbnail are cut out.
"""

from __future__ import annotations

import re
import struct

from unlikeness.pictures.budget import spend

__all__ = ["BEHIND", "CREDENTIALS", "NOTE", "check_exif", "exif_without", "is_behind", "resources_without"]

NOTE = "embedded thumbnail left out, it shows the picture unprotected"
CREDENTIALS = "content credentials left out, they sign the old pixels"
"""Of C2PA manifests, which also hold a thumbnail."""
BEHIND = "data behind the picture left out"
_PADDING = 64
"""Fewer bytes than this behind the picture are padding, and so are zeros in any number."""

_OFFSET, _LENGTH = 0x0201, 0x0202
"""Where a JPEG thumbnail begins, counted from the TIFF header, and its bytes."""
_STRIPS, _STRIP_LENGTHS = 0x0111, 0x0117
"""The same of one that is not compressed."""
_THUMBNAILS = (0x0409, 0x040C)
"""Image resources of Photoshop 4, and of 5 and later."""


_NUMBER_BYTES = 40
"""What a number of a tuple takes in memory."""
_PREFIXES = re.compile(rb"(?:Exif\0.)+", re.DOTALL)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


def check_exif(data: bytes) -> None:
    """Refuse an EXIF block whose first directory makes its reader, Pillow, copy more than there is.

    Raises Unusable where the file's budget ends.
    """
    prefixes = _PREFIXES.match(data)
    base = prefixes.end() if prefixes else 0
    spend(copied=base // 6 * len(data))  # they are taken off one by one
    order = {b"II": "<", b"MM": ">"}.get(data[base : base + 2])
    if order is None:
        return
    try:
        end = _end(data, base, base + 4, order)
        (at,) = struct.unpack_from(order + "I", data, base + 4)
        for entry in range(base + at + 2, end, 12):
            _, kind, count, start = struct.unpack_from(order + "HHII", data, entry)
            size = _TYPE_BYTES.get(kind, 0) * count
            spend(entries=1, copied=max(min(size, len(data) - base - start), 0) if size > 4 else 0)
    except struct.error:  # it leads out of the block, where nothing is
        return


def is_behind(tail: bytes) -> bool:
    """Whether what stands behind a picture's end is more than padding."""
    return len(tail) >= _PADDING and bool(tail.strip(b"\0"))


def exif_without(data: bytes) -> bytes:
    """An EXIF block, with or without its "Exif" prefix, without thumbnail; `data` itself if it has none."""
    check_exif(data)
    base = 6 if data[:5] == b"Exif\0" else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[base : base + 4])
    if order is None:
        return data
    try:
        link = _end(data, base, base + 4, order)
        (to,) = struct.unpack_from(order + "I", data, link)
        if not to:
            return data
        cleaned = bytearray(data)
        cleaned[link : link + 4] = bytes(4)
        for start, length in _extents(data, base, link, order):
            spend(copied=length)
            cleaned[start : start + length] = bytes(length)
    except struct.error:  # it leads out of the block, where nothing is
        return data
    return bytes(cleaned)


def _end(data: bytes, base: int, pointer: int, order: str) -> int:
    """Where the directory that `pointer` leads to ends: the place of its link to the next one."""
    (at,) = struct.unpack_from(order + "I", data, pointer)
    (count,) = struct.unpack_from(order + "H", data, base + at)
    return int(base + at + 2 + 12 * count)


def _extents(data: bytes, base: int, link: int, order: str) -> list[tuple[int, int]]:
    """(start, length) in `data` of the thumbnail that the directory behind `link` describes.

    Only what lies wholly inside the block and, if it says to be a JPEG, begins like one.
    """
    end = _end(data, base, link, order)
    (at,) = struct.unpack_from(order + "I", data, link)
    places = {}
    for entry in range(base + at + 2, end, 12):
        spend(entries=1)
        tag, kind, count, value = struct.unpack_from(order + "HHII", data, entry)
        if tag in (_OFFSET, _LENGTH, _STRIPS, _STRIP_LENGTHS) and kind in (3, 4):
            size = 2 if kind == 3 else 4
            place = entry + 8 if count * size <= 4 else base + value
            places[tag] = f"{order}{count}{'H' if kind == 3 else 'I'}", count, place
    found = {}
    for tag, (code, count, place) in places.items():
        spend(copied=_NUMBER_BYTES * min(count, len(data)))
        found[tag] = struct.unpack_from(code, data, place)
    compressed = zip(found.get(_OFFSET, ()), found.get(_LENGTH, ()), strict=False)
    plain = zip(found.get(_STRIPS, ()), found.get(_STRIP_LENGTHS, ()), strict=False)
    extents = [(base + s, n) for s, n in compressed if data[base + s : base + s + 2] == b"\xff\xd8"]
    extents += [(base + s, n) for s, n in plain if base + s >= end]
    return [(start, length) for start, length in extents if start + length <= len(data)]


def resources_without(data: bytes) -> bytes:
    """Photoshop's image resources without thumbnails; `data` itself if it has none or is cut off."""
    kept, at = [], 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        spend(entries=1)
        name = data[at + 6] + 1
        head = 6 + name + name % 2
        if at + head + 4 > len(data):
            return data
        (length,) = struct.unpack_from(">I", data, at + head)
        end = at + head + 4 + length + length % 2
        if at + head + 4 + length > len(data):
            return data
        if int.from_bytes(data[at + 4 : at + 6], "big") not in _THUMBNAILS:
            kept.append(data[at:end])
        at = end
    kept.append(data[at:])
    shorter = b"".join(kept)
    return data if len(shorter) == len(data) else shorter
