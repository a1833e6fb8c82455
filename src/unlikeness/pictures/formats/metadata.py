"""Taking out metadata that shows the picture unprotected, or that announces data which is left out.

EXIF is full of offsets, and maker notes hide some that cannot be moved. So its thumbnail is taken out in
place: the link to the thumbnail's directory and the thumbnail's bytes become zeros, and nothing else changes
(Exif 3.0, section 4.5: the first directory's link leads to the thumbnail's). Photoshop's image resources
("8BIM" blocks, one after the other) hold no offsets, so thumbnails are cut out.

Phones keep a short video (a motion photo), a gain map, depth or further pictures behind or beside the
picture, and XMP announces them with lengths and offsets. A protected file is written without such data, so
the announcement would lead to nothing. XMP can also hold pictures: thumbnails, and the picture before its
background was blurred. Both are overwritten with spaces, which XML allows between attributes and elements:
all other bytes stay what and where they are. Namespaces decide, since prefixes are free. XMP that cannot be
read as XML to its end is cleaned as far as it can be read.
"""

from __future__ import annotations

import contextlib
import re
import struct
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from unlikeness.pictures.limits import Unusable, spend

__all__ = [
    "ANNOUNCED", "BEHIND", "CREDENTIALS", "NOTE", "NUMBER_BYTES", "ORDERS", "blanked", "check_exif",
    "directory", "exif_without", "is_behind", "resources_without", "without_thumbnail",
]  # fmt: skip

NOTE = "embedded thumbnail left out, it shows the picture unprotected"
ANNOUNCED = "what XMP says of a video, gain map or further picture left out was removed"
CREDENTIALS = "content credentials left out, they sign the old pixels"
"""The note of C2PA manifests, which also hold a thumbnail."""
BEHIND = "data behind the picture left out"
_PADDING = 64
"""Fewer bytes than this behind the picture are padding, and so are zeros in any number."""

_OFFSET, _LENGTH = 0x0201, 0x0202
"""Tags with the start of a JPEG thumbnail, counted from the TIFF header, and its bytes."""
_STRIPS, _STRIP_LENGTHS = 0x0111, 0x0117
"""The same for an uncompressed thumbnail."""
_THUMBNAILS = (0x0409, 0x040C)
"""Image resources of Photoshop 4, and of 5 and later."""
NUMBER_BYTES = 40
"""What a number of a tuple takes in memory."""
_PREFIXES = re.compile(rb"(?:Exif\0.)+", re.DOTALL)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}

_GOOGLE = "http://ns.google.com/photos/"
_ANNOUNCING: dict[str, tuple[str, ...]] = {
    _GOOGLE + "1.0/camera/": ("MotionPhoto", "MicroVideo"),
    _GOOGLE + "1.0/container/": ("",),
    _GOOGLE + "1.0/container/item/": ("",),
    _GOOGLE + "dd/1.0/container/": ("",),
    _GOOGLE + "dd/1.0/item/": ("",),
    _GOOGLE + "dd/1.0/device/": ("Container", "Profiles"),
    "http://ns.adobe.com/hdr-gain-map/1.0/": ("",),
    "http://ns.apple.com/HDRGainMap/1.0/": ("",),
    "http://ns.apple.com/HDRToneMap/1.0/": ("",),
    "http://ns.apple.com/pixeldatainfo/1.0/": ("",),
    "http://ns.xiaomi.com/photos/1.0/camera/": ("XMPMeta",),
    "http://ns.oplus.com/photos/1.0/camera/": ("MotionPhoto", "OLivePhoto", "VideoLength"),
    "http://ns.samsung.com/photos/1.0/camera/": ("MotionPhoto", "EmbeddedVideo"),
}
"""By namespace, the beginnings of properties that announce data that is left out; "" for all properties."""
_PICTURES: dict[str, tuple[str, ...]] = {
    _GOOGLE + "1.0/image/": ("",),
    "http://ns.adobe.com/xap/1.0/": ("Thumbnails",),
    "http://ns.adobe.com/xap/1.0/g/img/": ("image",),
}
"""The same for properties that hold a picture."""

_DEEPEST = 1000
_TAG = re.compile(rb"""<[^\s/>"']+(?:[^"'>]|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""\s([^\s=/>"']+)\s*=\s*("[^"]*"|'[^']*')""")
_QUICK = re.compile(b"|".join(re.escape(name.encode()) for name in {**_ANNOUNCING, **_PICTURES}))


def is_behind(tail: bytes) -> bool:
    """Whether the bytes behind a picture's end are more than padding."""
    return len(tail) >= _PADDING and bool(tail.strip(b"\0"))


def directory(data: bytes, base: int, pointer: int, order: str) -> range:
    """The places of the entries in the EXIF directory to which `pointer` leads; it stops at the link behind.

    base: place of the TIFF header, from which offsets count. struct.error if it leads out of the data.
    """
    (at,) = struct.unpack_from(order + "I", data, pointer)
    (count,) = struct.unpack_from(order + "H", data, base + at)
    return range(base + at + 2, base + at + 2 + 12 * count, 12)


def check_exif(data: bytes) -> None:
    """Refuse an EXIF block whose first directory makes Pillow copy more than there is. Raises Unusable."""
    prefixes = _PREFIXES.match(data)
    base = prefixes.end() if prefixes else 0
    spend(copied=base // 6 * len(data))  # Pillow takes them off one by one
    order = {b"II": "<", b"MM": ">"}.get(data[base : base + 2])
    if order is None:
        return
    with contextlib.suppress(struct.error):  # it leads out of the block, where nothing is
        for entry in directory(data, base, base + 4, order):
            _, kind, count, start = struct.unpack_from(order + "HHII", data, entry)
            size = _TYPE_BYTES.get(kind, 0) * count
            spend(entries=1, copied=max(min(size, len(data) - base - start), 0) if size > 4 else 0)


def exif_without(data: bytes) -> bytes:
    """An EXIF block, with or without its "Exif" prefix, without thumbnail; `data` itself if it has none."""
    check_exif(data)
    base = 6 if data[:5] == b"Exif\0" else 0
    order = ORDERS.get(data[base : base + 4])
    if order is None:
        return data
    try:
        link = directory(data, base, base + 4, order).stop
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


def without_thumbnail(exif: bytes) -> tuple[bytes, set[str]]:
    """`exif_without`, and the note of the thumbnail if there was one."""
    cleaned = exif_without(exif)
    return cleaned, set() if cleaned == exif else {NOTE}


def _extents(data: bytes, base: int, link: int, order: str) -> list[tuple[int, int]]:
    """(start, length) in `data` of the thumbnail that the directory behind `link` describes.

    Only data that lies wholly inside the block and, if it claims to be a JPEG, begins like one.
    """
    entries = directory(data, base, link, order)
    places = {}
    for entry in entries:
        spend(entries=1)
        tag, kind, count, value = struct.unpack_from(order + "HHII", data, entry)
        if tag in (_OFFSET, _LENGTH, _STRIPS, _STRIP_LENGTHS) and kind in (3, 4):
            place = entry + 8 if count * (2 if kind == 3 else 4) <= 4 else base + value
            places[tag] = f"{order}{count}{'H' if kind == 3 else 'I'}", count, place
    found = {}
    for tag, (code, count, place) in places.items():
        spend(copied=NUMBER_BYTES * min(count, len(data)))
        found[tag] = struct.unpack_from(code, data, place)
    compressed = zip(found.get(_OFFSET, ()), found.get(_LENGTH, ()), strict=False)
    plain = zip(found.get(_STRIPS, ()), found.get(_STRIP_LENGTHS, ()), strict=False)
    extents = [(base + s, n) for s, n in compressed if data[base + s : base + s + 2] == b"\xff\xd8"]
    extents += [(base + s, n) for s, n in plain if base + s >= entries.stop]
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


def blanked(xmp: bytes) -> tuple[bytes, set[str]]:
    """XMP of the same length without pictures and announcements, and notes of them; or `xmp` itself."""
    spans = _Finder(xmp).all() if _QUICK.search(xmp) else []
    if not spans:
        return xmp, set()
    result = bytearray(xmp)
    for start, end, _ in spans:
        result[start:end] = b" " * (end - start)
    return bytes(result), {note for _, _, note in spans}


@dataclass
class _Finder:
    """Handlers of a parser that find the attributes and elements to blank out."""

    xmp: bytes
    found: list[tuple[int, int, str]] = field(default_factory=list)
    """Start, end and note of each."""
    depth: int = 0
    element: tuple[int, int, str] | None = None
    """Start, depth and note of the open element to blank out."""

    def all(self) -> list[tuple[int, int, str]]:
        self.start = max(self.xmp.find(b"<"), 0)
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.namespace_prefixes = True  # names are "namespace local prefix"
        self.parser.StartElementHandler = self._open
        self.parser.EndElementHandler = self._close
        self.parser.EntityDeclHandler = _refuse
        with contextlib.suppress(expat.ExpatError):
            self.parser.Parse(self.xmp[self.start :], True)
        return self.found

    def _open(self, name: str, attributes: dict[str, str]) -> None:
        spend()  # only time: real XMP can have hundreds of thousands of elements
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unusable("its XMP is nested deeper than any program writes; export it again without it")
        if self.element is not None:
            return
        at = self.start + self.parser.CurrentByteIndex
        tag = _TAG.match(self.xmp, at)
        if tag is None:
            return
        kind = _kind(name)
        spend(entries=1 if kind else 0)
        if kind and tag.group().endswith(b"/>"):
            self.found.append((at, tag.end(), kind))
        elif kind:
            self.element = at, self.depth, kind
        elif gone := {_raw(key): kind for key in attributes if (kind := _kind(key))}:
            self._attributes(tag, gone)

    def _attributes(self, tag: re.Match[bytes], gone: dict[bytes, str]) -> None:
        for attribute in _ATTRIBUTE.finditer(self.xmp, tag.start(), tag.end()):
            if kind := gone.get(attribute.group(1)):
                spend(entries=1)
                self.found.append((attribute.start(1), attribute.end(), kind))

    def _close(self, _: str) -> None:
        if self.element is not None and self.element[1] == self.depth:
            start, _depth, kind = self.element
            end = self.xmp.find(b">", self.start + self.parser.CurrentByteIndex)
            self.found.append((start, end + 1 if end >= 0 else len(self.xmp), kind))
            self.element = None
        self.depth -= 1


def _kind(name: str) -> str | None:
    """The note for a property of this expanded name; None if the property stays."""
    namespace, _, rest = name.partition(" ")
    local = rest.partition(" ")[0]
    if rest and local.startswith(_ANNOUNCING.get(namespace, ())):
        return ANNOUNCED
    return NOTE if rest and local.startswith(_PICTURES.get(namespace, ())) else None


def _raw(name: str) -> bytes:
    """An attribute's name as it stands in the file."""
    _, local, prefix = name.split(" ")
    return f"{prefix}:{local}".encode()


def _refuse(*_: Any) -> None:
    """XMP needs no entities of its own, which may unfold to any size."""
    raise expat.ExpatError
