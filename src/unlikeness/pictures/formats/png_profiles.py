"""XMP in PNG text, and what ImageMagick keeps there in hexadecimals ("Raw profile type exif", ...).

A raw profile is its name, its length in bytes and its bytes in hexadecimal digits, with line breaks between
them. EXIF, Photoshop's resources and XMP are cleaned like those in their own places (`previews`, `xmp`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from unlikeness.pictures.budget import spend
from unlikeness.pictures.formats.previews import NOTE, exif_without, resources_without
from unlikeness.pictures.formats.xmp import blanked

__all__ = ["text_without"]

_XMP = b"XML:com.adobe.xmp"
_KEYWORD = b"raw profile type "
_CLEAN: dict[bytes, Callable[[bytes], bytes]] = {
    b"exif": exif_without,
    b"app1": exif_without,
    b"8bim": resources_without,
    b"iptc": resources_without,
    b"xmp": bytes,
}
_MAX_TEXT = 16 << 20
_LINE = 72
"""Digits of a line, as ImageMagick writes them."""


def text_without(kind: bytes, body: bytes) -> tuple[bytes | None, set[str]]:
    """A tEXt, zTXt or iTXt chunk's body without pictures and announcements, and notes of what they were;
    `body` itself if it holds none.

    None for XMP or a profile of these names that cannot be read: nobody knows what is in it.
    """
    keyword, _, rest = body.partition(b"\0")
    name = keyword.lower().removeprefix(_KEYWORD).strip()
    raw = keyword.lower().startswith(_KEYWORD) and name in _CLEAN
    if not raw and keyword != _XMP:
        return body, set()
    try:
        head, text, packed = _opened(kind, rest)
        cleaned, notes = _profile(name, text) if raw else blanked(text)
    except (ValueError, zlib.error):
        return None, {NOTE}
    if not notes:
        return body, notes
    return keyword + b"\0" + head + (zlib.compress(cleaned) if packed else cleaned), notes


def _opened(kind: bytes, rest: bytes) -> tuple[bytes, bytes, bool]:
    """What stands between keyword and text; the text; whether it was compressed."""
    if kind == b"zTXt":
        return rest[:1], _unpacked(rest[1:]), True
    if kind == b"tEXt":
        return b"", rest, False
    languages = rest[2:].split(b"\0", 2)
    if len(languages) < 3:
        raise ValueError
    text = languages[2]
    head, packed = rest[: len(rest) - len(text)], rest[:1] == b"\1"
    return head, _unpacked(text) if packed else text, packed


def _profile(name: bytes, text: bytes) -> tuple[bytes, set[str]]:
    """A raw profile's text, cleaned. Raises ValueError where it is none."""
    spend(copied=2 * len(text))
    title, _, digits = text.split(maxsplit=2)
    profile = bytes.fromhex(digits.decode("ascii"))
    shown = _CLEAN[name](profile)
    notes = {NOTE} if shown != profile else set[str]()
    if name in (b"app1", b"xmp"):
        shown, found = blanked(shown)
        notes |= found
    if not notes:
        return text, notes
    lines = (shown.hex()[i : i + _LINE] for i in range(0, 2 * len(shown), _LINE))
    return b"\n%s\n%8d\n%s\n" % (title, len(shown), "\n".join(lines).encode()), notes


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, _MAX_TEXT)
    if not unpacker.eof:
        raise ValueError
    spend(copied=len(text))
    return text
