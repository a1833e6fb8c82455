"""What XMP says of data that is left out with a picture's container, and pictures inside XMP, blanked out.

Phones keep a short video (a motion photo), a gain map, depth or further pictures behind the picture or
beside it, and say so in XMP, with lengths and offsets. Such data is left out of a protected file, so the
announcement would lead into the picture itself or to nothing. XMP can also hold pictures: thumbnails, and the
picture before its background was blurred. Both are overwritten with spaces, which XML allows between
attributes and elements: all other bytes stay what and where they are.

Namespaces are told by their names, since prefixes are free. What cannot be read as XML to its end is blanked
out as far as it can.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from unlikeness.pictures.budget import spend
from unlikeness.pictures.formats.previews import NOTE
from unlikeness.pictures.unusable import Unusable

__all__ = ["ANNOUNCED", "blanked"]

ANNOUNCED = "what XMP says of a video, gain map or further picture left out was removed"

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
"""By namespace, how the names of properties begin that announce what is left out; "" for all of them."""
_PICTURES: dict[str, tuple[str, ...]] = {
    _GOOGLE + "1.0/image/": ("",),
    "http://ns.adobe.com/xap/1.0/": ("Thumbnails",),
    "http://ns.adobe.com/xap/1.0/g/img/": ("image",),
}
"""Likewise those that hold a picture."""

_DEEPEST = 1000
_TAG = re.compile(rb"""<[^\s/>"']+(?:[^"'>]|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""\s([^\s=/>"']+)\s*=\s*("[^"]*"|'[^']*')""")
_QUICK = re.compile(b"|".join(re.escape(name.encode()) for name in {**_ANNOUNCING, **_PICTURES}))


def blanked(xmp: bytes) -> tuple[bytes, set[str]]:
    """XMP of the same length without all that, and notes of what it was; `xmp` itself if it has none."""
    spans = _Finder(xmp).all() if _QUICK.search(xmp) else []
    if not spans:
        return xmp, set()
    result = bytearray(xmp)
    for start, end, _ in spans:
        result[start:end] = b" " * (end - start)
    return bytes(result), {note for _, _, note in spans}


@dataclass
class _Finder:
    """A parser's handlers, which find the attributes and elements to blank out."""

    xmp: bytes
    found: list[tuple[int, int, str]] = field(default_factory=list)
    """Start, end and the note of each."""
    depth: int = 0
    element: tuple[int, int, str] | None = None
    """Start, depth and the note of an element that is being blanked out."""

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
        spend()  # time alone: real XMP has had hundreds of thousands of elements
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
    """The note that a property's expanded name is left out with; None if it stays."""
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
    """Entities of its own have no place in XMP, and may unfold to any size."""
    raise expat.ExpatError
