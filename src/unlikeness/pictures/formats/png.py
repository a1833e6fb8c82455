"""PNG: 8 and 16 bits a sample, exactly; chunks are copied, but for those that forbid it.

Unknown chunks say themselves whether they still hold when pixels have changed (specification, section 5.4);
those that do not are left out and named in the note, and with them, without a word, the time of the last
change. An EXIF chunk loses its thumbnail, and so does EXIF that a text holds (`png_profiles`).

Pillow's own PNG reader reduces 16-bit colour to 8 bits. Its C decoder does not have to: asked for rows as
"RGB;16B" it gives the high byte of each big-endian sample, and as "RGB;16L" the low one, so two passes give
all 16 bits (grey with alpha: four bytes a pixel, read as "RGBA"). Writing is `png_encoding`. Chunks follow
the PNG specification, third edition (W3C 2025).

What cannot be kept, and is said in the note: a palette, a transparent colour (both become RGB or an alpha
channel, because protected pixels have more colours), and fewer than 8 bits a sample. Interlacing is not
written.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from unlikeness.pictures.budget import spend
from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats.base import (
    ANIMATED,
    DAMAGE,
    Raster,
    Unusable,
    check_size,
    exif_orientation,
    joined,
    to_array,
)
from unlikeness.pictures.formats.parts import Parts
from unlikeness.pictures.formats.png_encoding import SIGNATURE, chunk, write_pixels
from unlikeness.pictures.formats.png_profiles import text_without
from unlikeness.pictures.formats.previews import BEHIND, CREDENTIALS, NOTE, exif_without, is_behind

__all__ = ["read"]

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_SPACES: dict[int, Literal["grey", "rgb"]] = {
    _GREY: "grey",
    _GREY_ALPHA: "grey",
    _RGB: "rgb",
    _RGB_ALPHA: "rgb",
}
_EIGHT = {_GREY: "L", _RGB: "RGB", _GREY_ALPHA: "LA", _RGB_ALPHA: "RGBA"}
_STRUCTURE = frozenset({b"IHDR", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})
_TYPED = frozenset({b"PLTE", b"tRNS", b"bKGD", b"sBIT", b"hIST"})
"""Chunks whose layout follows the colour type: copied only where that stays."""
_KNOWN = _TYPED | {
    b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"sPLT", b"pHYs", b"oFFs", b"pCAL",
    b"sCAL", b"sTER",
}  # fmt: skip
_UNTOLD = frozenset({b"tIME", b"iDOT", b"caBX", b"PLTE", b"tRNS"}) | _STRUCTURE
"""Left out without their names in a note: the time of the last change, a hint for Apple's decoder, and what
has a note of its own."""

_SMALL = 1024
"""Bytes of pixels in a chunk that costs no more to visit than they to unpack."""
_RATIO = 1032
"""The most that Deflate unpacks from a byte."""
_METADATA = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})

Chunk = tuple[bytes, bytes]
_IDAT = zlib.crc32(b"IDAT")
_STREAMED = 32 << 20
"""Bytes of compressed pixels from which on they are read where they lie, without a copy in one piece."""


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


def read(data: bytes, max_pixels: int) -> Raster:
    """Decode a PNG file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    chunks = _chunks(data, max_pixels)
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if any(kind == b"acTL" and int.from_bytes(body[:4], "big") > 1 for kind, body in chunks):
        raise Unusable(ANIMATED)
    idat = [body for kind, body in chunks if kind == b"IDAT"]
    first = next((i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT"), len(chunks))
    extras = {kind: body for kind, body in chunks if kind in _TYPED}
    if width * height * depth > 8 * _RATIO * sum(map(len, idat)):
        raise Unusable("it is truncated (too little data for its size); copy or export it again")
    pixels = _decode(idat, (width, height), depth, colour_type, interlaced)
    written, note = colour_type, None
    if colour_type == _PALETTE:
        pixels = _palette(pixels, extras.get(b"PLTE", b""), extras.get(b"tRNS"))
        written = _RGB_ALPHA if b"tRNS" in extras else _RGB
        note = "palette written as RGBA" if b"tRNS" in extras else "palette written as RGB"
    else:
        if depth < 8:
            note = f"{depth}-bit grey written as 8-bit grey"
        if b"tRNS" in extras and colour_type in (_GREY, _RGB):
            pixels = _transparent_colour(pixels, extras[b"tRNS"], depth)
            written = colour_type + 4
            note = joined(note, "transparent colour written as an alpha channel")
    changed = written != colour_type or depth < 8
    cleaned = [_cleaned(kind, body) for kind, body in chunks]
    kept = [
        (i, (kind, body))
        for i, ((kind, _), (body, _)) in enumerate(zip(chunks, cleaned, strict=True))
        if body is not None and _copied(kind) and not (changed and kind in _TYPED)
    ]
    note = joined(note, *sorted({taken_out for _, notes in cleaned for taken_out in notes}))
    lost = {kind for kind, _ in chunks} - {kind for _, (kind, _) in kept} - _METADATA - _UNTOLD
    note = joined(note, _dropped(lost), _trailing(data, chunks))
    if any(kind == b"caBX" for kind, _ in chunks):
        note = joined(note, CREDENTIALS)
    before, behind = (tuple(c for i, c in kept if i < first), tuple(c for i, c in kept if i > first))
    model = ColourModel(_SPACES[written], "straight" if written in (_GREY_ALPHA, _RGB_ALPHA) else "none")
    return Raster(pixels, model, _Png(written, before, behind), True, _orientation(chunks), note)


def _orientation(chunks: list[Chunk]) -> int:
    """What Pillow finds in the metadata, wherever it stands: asked of the same chunks around a single
    pixel.
    """
    buffer = io.BytesIO()
    buffer.write(SIGNATURE)
    chunk(buffer, b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, _GREY, 0, 0, 0))
    for kind, body in chunks:
        if kind in _METADATA:
            chunk(buffer, kind, body)
    chunk(buffer, b"IDAT", zlib.compress(b"\0\0"))
    chunk(buffer, b"IEND", b"")
    buffer.seek(0)
    try:
        return exif_orientation(PngImageFile(buffer))
    except DAMAGE:
        return 1


def _cleaned(kind: bytes, body: bytes) -> tuple[bytes | None, set[str]]:
    """A chunk's body without small copies of the picture and announcements of others, and notes of them; None
    if the chunk goes with it.
    """
    if kind == b"eXIf":
        without = exif_without(body)
        return without, set() if without == body else {NOTE}
    return text_without(kind, body) if kind in _METADATA else (body, set())


def _copied(kind: bytes) -> bool:
    """Known chunks, and unknown ones that say they may be copied when pixels change (5th bit of the 4th
    letter).
    """
    return kind not in _STRUCTURE and (kind in _KNOWN or bool(kind[3] & 0x20))


def _dropped(kinds: set[bytes]) -> str | None:
    """The note of chunks that do not hold for other pixels."""
    names = ", ".join(sorted("".join(chr(b) if chr(b).isalnum() else "?" for b in kind) for kind in kinds))
    return f"chunks of the old pixels left out ({names})" if names else None


def _trailing(data: bytes, chunks: list[Chunk]) -> str | None:
    """The note of what stands behind the end chunk and is no padding."""
    end = len(SIGNATURE) + sum(12 + len(body) for _, body in chunks)
    return BEHIND if is_behind(data[end:]) else None


def _chunks(data: bytes, max_pixels: int) -> list[Chunk]:
    """All chunks up to IEND; the size is checked as soon as the header is read.

    A wrong checksum is refused in every chunk, as by Pillow: a right one would hide the damage in the copy.
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
            check_size(width, height, max_pixels)
        elif kind == b"IHDR" or (critical and kind not in (b"PLTE", b"IDAT", b"IEND")):
            raise Unusable("it is damaged (an unknown critical chunk); copy or export it again")
        if kind != b"IDAT" or length < _SMALL:
            spend(entries=1)
        found.append((kind, body))
        if kind == b"IEND":
            return found
        at += 12 + length


def _decode(
    idat: Sequence[bytes], size: tuple[int, int], depth: int, colour_type: int, interlaced: int
) -> Pixels:
    """The samples as they are stored: H × W × C uint8 (grey below 8 bits scaled up, palette indices not) or
    uint16.
    """

    joined_up: list[bytes] = []

    def image(mode: str, raw: str) -> Image.Image:
        if not joined_up:
            joined_up.append(b"".join(idat))
        return Image.frombytes(mode, size, joined_up[0], "zip", raw, interlaced)

    def rows(mode: str, raw: str) -> Pixels:
        return to_array(image(mode, raw))

    if colour_type == _PALETTE and depth in (1, 2, 4, 8):
        return rows("P", "P" if depth == 8 else f"P;{depth}")
    if colour_type == _GREY and depth == 1:
        return rows("1", "1") * np.uint8(255)
    if colour_type == _GREY and depth in (2, 4):
        return rows("L", f"L;{depth}")
    if colour_type in _EIGHT and depth == 8:
        if sum(map(len, idat)) >= _STREAMED:
            return to_array(_streamed(idat, size, colour_type, interlaced))
        return rows(_EIGHT[colour_type], _EIGHT[colour_type])
    if colour_type == _GREY and depth == 16:
        return np.array(image("I;16", "I;16B"), dtype=np.uint16)[..., None]
    if colour_type == _GREY_ALPHA and depth == 16:
        return rows("RGBA", "RGBA").view(">u2").astype(np.uint16)
    if colour_type in (_RGB, _RGB_ALPHA) and depth == 16:
        mode = _EIGHT[colour_type]
        pixels = rows(mode, f"{mode};16B").astype(np.uint16)
        pixels <<= 8
        pixels |= rows(mode, f"{mode};16L")
        return pixels
    raise Unusable(
        f"its header is damaged (colour type {colour_type}, {depth} bits); copy or export it again"
    )


def _streamed(idat: Sequence[bytes], size: tuple[int, int], colour_type: int, interlaced: int) -> Image.Image:
    """The pixels of 8 bits a sample, decoded from chunks where they lie."""
    header = io.BytesIO()
    header.write(SIGNATURE)
    chunk(header, b"IHDR", struct.pack(">IIBBBBB", *size, 8, colour_type, 0, 0, interlaced))
    parts: list[bytes] = [header.getvalue()]
    for body in idat:
        parts += [struct.pack(">I4s", len(body), b"IDAT"), body, struct.pack(">I", zlib.crc32(body, _IDAT))]
    end = io.BytesIO()
    chunk(end, b"IEND", b"")
    parts.append(end.getvalue())
    return PngImageFile(cast(BinaryIO, Parts(parts)))


def _palette(indices: Pixels, plte: bytes, trns: bytes | None) -> Pixels:
    """Palette indices H × W × 1 -> RGB, or RGBA where there is transparency; indices without a colour are
    black.
    """
    colours = np.zeros((256, 3), np.uint8)
    given = np.frombuffer(plte[: min(len(plte), 768) // 3 * 3], np.uint8).reshape(-1, 3)
    colours[: len(given)] = given
    if trns is not None:
        alpha = np.full(256, 255, np.uint8)
        alpha[: min(len(trns), 256)] = np.frombuffer(trns[:256], np.uint8)
        colours = np.column_stack((colours, alpha))
    return colours[indices[..., 0]]


def _transparent_colour(pixels: Pixels, trns: bytes, depth: int) -> Pixels:
    """Grey or RGB with one transparent colour -> the same with an alpha channel."""
    count = pixels.shape[2]
    if len(trns) < 2 * count:
        raise Unusable("it is damaged (its transparent colour is cut off); copy or export it again")
    key = np.frombuffer(trns[: 2 * count], ">u2").astype(np.int64)
    if depth < 8:
        key *= 255 // (2**depth - 1)
    clear = (pixels == key).all(axis=2)
    top = np.iinfo(pixels.dtype).max
    alpha = np.where(clear, 0, top).astype(pixels.dtype)
    return np.concatenate((pixels, alpha[..., None]), axis=2)
