"""HEIC and AVIF files put together box by box, from a picture that an encoder has made."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from unlikeness.pictures.formats.heif import read_container

ALPHA = "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"
DEPTH = "urn:mpeg:mpegB:cicp:systems:auxiliary:depth"
GAIN_MAP = "urn:com:apple:photo:2020:aux:hdrgainmap"
MATTE = "urn:com:apple:photo:2018:aux:portraiteffectsmatte"


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def clap(width: int, height: int, across: int = 0, down: int = 0) -> bytes:
    """A crop of this size; its centre lies so many half pixels right of and below the picture's."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, across, 2, down, 2))


def pasp(across: int, down: int) -> bytes:
    return box(b"pasp", struct.pack(">II", across, down))


def nclx(primaries: int, transfer: int, matrix: int = 6) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, 0x80))


def aux(name: str) -> bytes:
    return full(b"auxC", name.encode() + b"\0")


@dataclass
class Part:
    """An item: properties are whole boxes; references are (kind, to) with numbers of parts from 1 on."""

    kind: bytes
    content: bytes
    properties: Sequence[bytes] = ()
    references: Sequence[tuple[bytes, int]] = ()
    media: bytes = b""


def picture_part(encoded: bytes) -> Part:
    """The primary picture of a file, without EXIF and the like."""
    container = read_container(encoded)
    properties = [encoded[b.start : b.end] for b in container.properties_of(container.primary)]
    kind = container.items[container.primary].kind
    return Part(kind, container.content(container.primary), properties)


def assemble(parts: Sequence[Part], brand: bytes, *behind: bytes) -> bytes:
    """A file whose first part is the primary picture, with further boxes behind it."""
    stored: list[bytes] = []
    associations = b""
    for number, part in enumerate(parts, 1):
        entry = b""
        for prop in part.properties:
            stored.append(prop)
            essential = 0x80 if prop[4:8] in (b"clap", b"irot", b"imir", b"av1C", b"hvcC") else 0
            entry += bytes([len(stored) | essential])
        associations += struct.pack(">HB", number, len(part.properties)) + entry
    infos = [
        full(
            b"infe", struct.pack(">HH4s", n, 0, p.kind), b"\0", p.media + b"\0" if p.media else b"", version=2
        )
        for n, p in enumerate(parts, 1)
    ]
    references = []
    for number, part in enumerate(parts, 1):
        for kind in dict.fromkeys(kind for kind, _ in part.references):
            to = [target for name, target in part.references if name == kind]
            references.append(box(kind, struct.pack(f">HH{len(to)}H", number, len(to), *to)))
    head = box(b"ftyp", brand, bytes(4), b"mif1", b"miaf", brand)

    def meta(start: int) -> bytes:
        extents = b""
        for number, part in enumerate(parts, 1):
            extents += struct.pack(">HHHII", number, 0, 1, start, len(part.content))
            start += len(part.content)
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(">H", 1)),
            full(b"iloc", b"\x44\0", struct.pack(">H", len(parts)), extents),
            full(b"iinf", struct.pack(">H", len(infos)), *infos),
            full(b"iref", *references) if references else b"",
            box(
                b"iprp",
                box(b"ipco", *stored),
                full(b"ipma", struct.pack(">I", len(parts)), associations),
            ),
        )

    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + box(b"mdat", *(part.content for part in parts)) + b"".join(behind)
