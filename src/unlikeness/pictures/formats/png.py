"""PNG: 8 and 16 bits a sample, exactly; chunks are copied, except those that forbid it.

An unknown chunk has a flag for whether it still holds when pixels have changed (PNG specification, third
edition, W3C 2025, section 5.4). Those that do not are left out and named in the note. The time of the last
change is left out without a note. An EXIF chunk loses its thumbnail.

Texts can hold EXIF too, as well as Photoshop's resources and XMP. ImageMagick keeps them as raw profiles
("Raw profile type exif"): name, length in bytes and bytes in hexadecimal digits, with line breaks between
them. They are cleaned in the same way (`metadata`).

What cannot be kept is in the note: a palette or a transparent colour (they become RGB or an alpha channel,
because protected pixels have more colours), and fewer than 8 bits a sample. Interlacing is not written.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL.PngImagePlugin import PngImageFile

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats import base, metadata
from unlikeness.pictures.formats.png_pixels import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    SIGNATURE,
    chunk,
    decode,
    from_palette,
    with_alpha,
    write_pixels,
)
from unlikeness.pictures.limits import Unusable, spend

__all__ = ["read"]

_STRUCTURE = frozenset({b"IHDR", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})
_TYPED = frozenset({b"PLTE", b"tRNS", b"bKGD", b"sBIT", b"hIST"})
"""Chunks whose layout depends on the colour type: copied only if that stays."""
_KNOWN = _TYPED | {
    b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"sPLT", b"pHYs", b"oFFs", b"pCAL",
    b"sCAL", b"sTER",
}  # fmt: skip
_UNTOLD = frozenset({b"tIME", b"iDOT", b"caBX", b"PLTE", b"tRNS"}) | _STRUCTURE
"""Left out without a name in the note: the time of the last change, a hint for Apple's decoder, and chunks
with a note of their own."""

_SMALL = 1024
"""Bytes of pixels from which on a chunk costs less to visit than to unpack."""
_RATIO = 1032
"""The most that Deflate unpacks from a byte."""
_METADATA = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})

_XMP = b"XML:com.adobe.xmp"
_KEYWORD = b"raw profile type "
_CLEAN: dict[bytes, Callable[[bytes], bytes]] = {
    b"exif": metadata.exif_without,
    b"app1": metadata.exif_without,
    b"8bim": metadata.resources_without,
    b"iptc": metadata.resources_without,
    b"xmp": bytes,
}
_MAX_TEXT = 16 << 20
_LINE = 72
"""Digits of a line, as ImageMagick writes them."""

Chunk = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Png:
    """How to write the file again: chunks before and behind the pixels."""

    colour_type: int
    before: tuple[Chunk, ...]
    behind: tuple[Chunk, ...]

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        height, width = pixels.shape[:2]
        target.write(SIGNATURE)
        depth = 8 * pixels.dtype.itemsize
        chunk(target, b"IHDR", struct.pack(">IIBBBBB", width, height, depth, self.colour_type, 0, 0, 0))
        for kind, body in self.before:
            chunk(target, kind, body)
        write_pixels(pixels, target)
        for kind, body in self.behind:
            chunk(target, kind, body)
        chunk(target, b"IEND", b"")


def read(data: bytes, max_pixels: int) -> base.Raster:
    """Decode a PNG file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    chunks = _chunks(data, max_pixels)
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if any(kind == b"acTL" and int.from_bytes(body[:4], "big") > 1 for kind, body in chunks):
        raise Unusable(base.ANIMATED)
    idat = [body for kind, body in chunks if kind == b"IDAT"]
    first = next((i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT"), len(chunks))
    extras = {kind: body for kind, body in chunks if kind in _TYPED}
    if width * height * depth > 8 * _RATIO * sum(map(len, idat)):
        raise Unusable("it is truncated (too little data for its size); copy or export it again")
    pixels = decode(idat, (width, height), depth, colour_type, interlaced)
    written, note = colour_type, None
    if colour_type == PALETTE:
        pixels = from_palette(pixels, extras.get(b"PLTE", b""), extras.get(b"tRNS"))
        written = RGB_ALPHA if b"tRNS" in extras else RGB
        note = "palette written as RGBA" if b"tRNS" in extras else "palette written as RGB"
    else:
        if depth < 8:
            note = f"{depth}-bit grey written as 8-bit grey"
        if b"tRNS" in extras and colour_type in (GREY, RGB):
            pixels = with_alpha(pixels, extras[b"tRNS"], depth)
            written = colour_type + 4
            note = base.joined(note, "transparent colour written as an alpha channel")
    changed = written != colour_type or depth < 8
    kept: list[tuple[int, Chunk]] = []
    taken_out = set[str]()
    for i, (kind, body) in enumerate(chunks):
        cleaned, notes = _cleaned(kind, body)
        taken_out |= notes
        if cleaned is not None and _copied(kind) and not (changed and kind in _TYPED):
            kept.append((i, (kind, cleaned)))
    kinds = {kind for kind, _ in chunks}
    note = base.joined(
        note,
        *sorted(taken_out),
        _dropped(kinds - {kind for _, (kind, _) in kept} - _METADATA - _UNTOLD),
        _trailing(data, chunks),
        metadata.CREDENTIALS if b"caBX" in kinds else None,
    )
    before, behind = (tuple(c for i, c in kept if i < first), tuple(c for i, c in kept if i > first))
    model = ColourModel(
        "grey" if written in (GREY, GREY_ALPHA) else "rgb",
        "straight" if written in (GREY_ALPHA, RGB_ALPHA) else "none",
    )
    return base.Raster(pixels, model, _Png(written, before, behind), True, _orientation(chunks), note)


def _orientation(chunks: list[Chunk]) -> int:
    """The orientation that Pillow finds in the metadata: in a file of the same chunks and a single pixel."""
    buffer = io.BytesIO()
    buffer.write(SIGNATURE)
    chunk(buffer, b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, GREY, 0, 0, 0))
    for kind, body in chunks:
        if kind in _METADATA:
            chunk(buffer, kind, body)
    chunk(buffer, b"IDAT", zlib.compress(b"\0\0"))
    chunk(buffer, b"IEND", b"")
    buffer.seek(0)
    try:
        return base.exif_orientation(PngImageFile(buffer))
    except base.DAMAGE:
        return 1


def _cleaned(kind: bytes, body: bytes) -> tuple[bytes | None, set[str]]:
    """A chunk's body without pictures and announcements, and notes of them; None to leave out the chunk."""
    if kind == b"eXIf":
        return metadata.without_thumbnail(body)
    return _text_without(kind, body) if kind in _METADATA else (body, set())


def _copied(kind: bytes) -> bool:
    """Whether a chunk is known, or allows to be copied when pixels change (5th bit of the 4th letter)."""
    return kind not in _STRUCTURE and (kind in _KNOWN or bool(kind[3] & 0x20))


def _dropped(kinds: set[bytes]) -> str | None:
    """The note of chunks that do not hold for other pixels."""
    names = ", ".join(sorted("".join(chr(b) if chr(b).isalnum() else "?" for b in kind) for kind in kinds))
    return f"chunks of the old pixels left out ({names})" if names else None


def _trailing(data: bytes, chunks: list[Chunk]) -> str | None:
    """The note of data behind the end chunk, except padding."""
    end = len(SIGNATURE) + sum(12 + len(body) for _, body in chunks)
    return metadata.BEHIND if metadata.is_behind(data[end:]) else None


def _chunks(data: bytes, max_pixels: int) -> list[Chunk]:
    """All chunks up to IEND. The size is checked as soon as the header is read.

    A wrong checksum is refused in every chunk, as in Pillow: the copy would have a right one and hide the
    damage.
    """
    found: list[Chunk] = []
    whole = memoryview(data)
    at = len(SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise Unusable("it is truncated (no end chunk); copy or export it again")
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        # Pixels are not copied.
        body: Any = (whole if kind == b"IDAT" else data)[at + 8 : at + 8 + length]
        check = data[at + 8 + length : at + 12 + length]
        if len(body) < length or len(check) < 4:
            raise Unusable("it is truncated; copy or export it again")
        critical = not kind[0] & 0x20
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(check, "big"):
            raise Unusable("it is damaged (a checksum is wrong); copy or export it again")
        if not found:
            if kind != b"IHDR" or length != 13:
                raise Unusable("it is damaged (no header); copy or export it again")
            width, height = struct.unpack(">II", body[:8])
            base.check_size(width, height, max_pixels)
        elif kind == b"IHDR" or (critical and kind not in (b"PLTE", b"IDAT", b"IEND")):
            raise Unusable("it is damaged (an unknown critical chunk); copy or export it again")
        if kind != b"IDAT" or length < _SMALL:
            spend(entries=1)
        found.append((kind, body))
        if kind == b"IEND":
            return found
        at += 12 + length


def _text_without(kind: bytes, body: bytes) -> tuple[bytes | None, set[str]]:
    """A tEXt, zTXt or iTXt chunk's body without pictures and announcements, and notes of them; or `body`
    itself.

    None for XMP or a profile that cannot be read, since its content is unknown.
    """
    keyword, _, rest = body.partition(b"\0")
    name = keyword.lower().removeprefix(_KEYWORD).strip()
    raw = keyword.lower().startswith(_KEYWORD) and name in _CLEAN
    if not raw and keyword != _XMP:
        return body, set()
    try:
        head, text, packed = _opened(kind, rest)
        cleaned, notes = _profile(name, text) if raw else metadata.blanked(text)
    except (ValueError, zlib.error):
        return None, {metadata.NOTE}
    if not notes:
        return body, notes
    return keyword + b"\0" + head + (zlib.compress(cleaned) if packed else cleaned), notes


def _opened(kind: bytes, rest: bytes) -> tuple[bytes, bytes, bool]:
    """The bytes between keyword and text, the text, and whether it was compressed."""
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
    """A raw profile's text, cleaned, and notes. ValueError for other text."""
    spend(copied=2 * len(text))
    title, _, digits = text.split(maxsplit=2)
    profile = bytes.fromhex(digits.decode("ascii"))
    shown = _CLEAN[name](profile)
    notes = {metadata.NOTE} if shown != profile else set[str]()
    if name in (b"app1", b"xmp"):
        shown, found = metadata.blanked(shown)
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
