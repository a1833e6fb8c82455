"""Coded data of a HEIC or AVIF picture that was overwritten: decoders draw something in its place.

HEVC never has two zeros before a byte below three within a unit, as such a byte would begin the next one
(H.265, 7.4.2). AV1 has no such rule, but adapts to what is frequent, so that whatever is coded many times
comes to nothing and long rows of zeros do not arise.
"""

from __future__ import annotations

import re

from unlikeness.pictures.formats.base import Unusable
from unlikeness.pictures.formats.heif_container import Container

__all__ = ["check_coded"]

_FORBIDDEN = re.compile(rb"\0\0[\0-\2]")
_ZEROS = bytes(512)
_DAMAGED = "it is damaged (part of its data is zeros); copy it again, or export it elsewhere"


def check_coded(container: Container) -> None:
    """Check the data of the primary picture, or of the parts that it consists of. Raises Unusable."""
    parts = [b for kind, a, b in container.references if kind == b"dimg" and a == container.primary]
    for number in (container.primary, *dict.fromkeys(parts)):
        item = container.items.get(number)
        if item is not None and item.kind == b"hvc1":
            _check_units(container.content(number), _length_bytes(container, number))
        elif item is not None and item.kind == b"av01":
            coded = container.content(number)
            place = coded.find(_ZEROS)
            if place >= 0 and coded[place:].strip(b"\0"):
                raise Unusable(_DAMAGED)


def _length_bytes(container: Container, number: int) -> int:
    """Bytes of the length in front of each unit (14496-15, 8.3.3.1)."""
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
            raise Unusable(_DAMAGED)
        at = end
