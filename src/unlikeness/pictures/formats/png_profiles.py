"""Metadata that ImageMagick and its kin keep in PNG text, in hexadecimals ("Raw profile type exif", ...).

The text is the profile's name, its length in bytes and its bytes in hexadecimal digits, with line breaks
between them. EXIF and Photoshop's resources in it are cleaned like those in their own places (`previews`).
"""

from __future__ import annotations

import zlib

from unlikeness.pictures.formats.previews import exif_without, resources_without

__all__ = ["profile_without"]

_KEYWORD = b"raw profile type "
_CLEAN = {
    b"exif": exif_without,
    b"app1": exif_without,
    b"8bim": resources_without,
    b"iptc": resources_without,
}
_MAX_TEXT = 64 << 20
_LINE = 72
"""Digits of a line, as ImageMagick writes them."""


def profile_without(kind: bytes, body: bytes) -> bytes | None:
    """A tEXt, zTXt or iTXt chunk's body without thumbnail; `body` itself if it holds none.

    None for a profile of these names that cannot be read: nobody knows what is in it.
    """
    keyword, _, rest = body.partition(b"\0")
    name = keyword.lower().removeprefix(_KEYWORD).strip()
    if not keyword.lower().startswith(_KEYWORD) or name not in _CLEAN:
        return body
    head, packed = b"", kind == b"zTXt"
    if kind == b"zTXt":
        head, rest = rest[:1], rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        languages = rest[2:].split(b"\0", 2)
        if len(languages) < 3:
            return None
        rest = languages[2]
        head = body[len(keyword) + 1 : len(body) - len(rest)]
    try:
        text = _unpacked(rest) if packed else rest
        title, _, digits = text.split(maxsplit=2)
        profile = bytes.fromhex(digits.decode("ascii"))
    except (ValueError, zlib.error):
        return None
    cleaned = _CLEAN[name](profile)
    if cleaned == profile:
        return body
    lines = (cleaned.hex()[i : i + _LINE] for i in range(0, 2 * len(cleaned), _LINE))
    text = b"\n%s\n%8d\n%s\n" % (title, len(cleaned), "\n".join(lines).encode())
    return keyword + b"\0" + head + (zlib.compress(text) if packed else text)


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, _MAX_TEXT)
    if not unpacker.eof:
        raise ValueError
    return text
