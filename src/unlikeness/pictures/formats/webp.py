"""WebP: lossy stays lossy at the source's quality, lossless stays lossless, every other chunk is copied.

Container: RFC 9649. Pillow encodes the picture. ICC, EXIF, XMP and unknown chunks are set around it byte for
byte, without a thumbnail in EXIF; content credentials are left out. Alpha of a lossy picture is always
compressed losslessly. Colours below full transparency are kept in lossless ones.

The quality of a lossy picture is read from the quantiser in its frame header (RFC 6386, sections 9.2 to 9.6
and 19.2, coded with the boolean decoder of section 7). The mapping to libwebp's quality is the inverse of its
`QualityToCompression` (src/enc/quant_enc.c): quality x in [0, 1] -> l = 2x/3 below 0.75, else 2x - 1;
quantiser q = 127 (1 - l^(1/3)).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from PIL import features
from PIL.WebPImagePlugin import WebPImageFile

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats.base import (
    ANIMATED,
    Raster,
    check_size,
    exif_orientation,
    joined,
    to_array,
    to_pillow,
)
from unlikeness.pictures.formats.metadata import BEHIND, CREDENTIALS, blanked, is_behind, without_thumbnail
from unlikeness.pictures.limits import Unusable, spend

__all__ = ["quality_of", "read"]

_ICC, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02
_PICTURE = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_C2PA = b"C2PA"
"""Content credentials, as the C2PA specification embeds them."""
_CLEAN = {b"XMP ": blanked, b"EXIF": without_thumbnail}
_FALLBACK_QUALITY = 90

Chunk = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _WebP:
    """How to write the file again. quality: None means lossless."""

    quality: float | None
    metadata: tuple[Chunk, ...]

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        height, width = pixels.shape[:2]
        image = to_pillow("RGBA" if pixels.shape[2] == 4 else "RGB", pixels)
        buffer = io.BytesIO()
        if self.quality is None:
            image.save(buffer, "WEBP", lossless=True, quality=75, exact=True)
        else:
            image.save(buffer, "WEBP", quality=self.quality, alpha_quality=100, method=4)
        picture = [(kind, body) for kind, body in _chunks(buffer.getvalue()) if kind in _PICTURE]
        flags = 0
        for kind, _ in self.metadata:
            flags |= {b"ICCP": _ICC, b"EXIF": _EXIF, b"XMP ": _XMP}.get(kind, 0)
        if any(kind == b"ALPH" or (kind == b"VP8L" and body[4] & 0x10) for kind, body in picture):
            flags |= _ALPHA
        parts = picture
        if self.metadata or len(picture) > 1:
            size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
            icc = [part for part in self.metadata if part[0] == b"ICCP"]
            rest = [part for part in self.metadata if part[0] != b"ICCP"]
            parts = [(b"VP8X", bytes((flags, 0, 0, 0)) + size), *icc, *picture, *rest]
        body = b"WEBP" + b"".join(k + struct.pack("<I", len(b)) + b + b"\0" * (len(b) & 1) for k, b in parts)
        target.write(b"RIFF" + struct.pack("<I", len(body)) + body)


def read(data: bytes, max_pixels: int) -> Raster:
    """Decode a WebP file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    if not features.check("webp"):
        raise Unusable("this Pillow lacks WebP; install Pillow's own wheel, pip install -U pillow")
    chunks = _chunks(data)
    found = dict(reversed(chunks))
    check_size(*_size(found), max_pixels)
    if b"VP8X" in found:
        width, height = (int.from_bytes(found[b"VP8X"][i : i + 3], "little") + 1 for i in (4, 7))
        check_size(width, height, max_pixels)
        if found[b"VP8X"][0] & _ANIMATION:
            raise Unusable(ANIMATED)
    image = WebPImageFile(io.BytesIO(data))
    pixels = to_array(image)
    lossless = b"VP8L" in found
    quality = None if lossless else quality_of(found[b"VP8 "]) or _FALLBACK_QUALITY
    metadata: list[Chunk] = []
    notes = set[str]()
    for kind, body in chunks:
        if kind not in _PICTURE | {b"VP8X", _C2PA}:
            clean = _CLEAN.get(kind)
            cleaned, found_notes = clean(body) if clean else (body, set[str]())
            metadata.append((kind, cleaned))
            notes |= found_notes
    behind = is_behind(data[8 + int.from_bytes(data[4:8], "little") :])
    note = joined(*sorted(notes), CREDENTIALS if _C2PA in found else None, BEHIND if behind else None)
    model = ColourModel("rgb", "straight" if pixels.shape[2] == 4 else "none")
    return Raster(pixels, model, _WebP(quality, tuple(metadata)), lossless, exif_orientation(image), note)


def _chunks(data: bytes) -> list[Chunk]:
    """All chunks within the file's own length."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise Unusable("it is truncated; copy or export it again")
    found: list[Chunk] = []
    at = 12
    while at + 8 <= end:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            raise Unusable("it is truncated or damaged; copy or export it again")
        spend(entries=1)
        found.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + (length & 1)
    return found


def _size(chunks: dict[bytes, bytes]) -> tuple[int, int]:
    """The size in the picture chunk itself (VP8: RFC 6386, 9.1; VP8L: RFC 9649, 3.4)."""
    lossy, lossless = chunks.get(b"VP8 ", b""), chunks.get(b"VP8L", b"")
    if len(lossy) >= 10 and lossy[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", lossy[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if len(lossless) >= 5 and lossless[0] == 0x2F:
        bits = int.from_bytes(lossless[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if b"ANMF" in chunks:
        raise Unusable(ANIMATED)
    raise Unusable("it is damaged (no picture in it); copy or export it again")


def quality_of(frame: bytes) -> float | None:
    """The libwebp quality, 1 to 100, that gives the mean quantiser of a VP8 key frame; None without one."""
    if len(frame) < 12 or frame[0] & 1:
        return None
    bits = _Bits(frame[10:])
    bits.number(2)  # colour space, clamping
    segments: list[int] = []
    absolute = False
    if bits.number(1):  # segmentation
        update_map, update_data = bits.number(1), bits.number(1)
        if update_data:
            absolute = bool(bits.number(1))
            segments = [bits.optional(7) for _ in range(4)]
            for _ in range(4):
                bits.optional(6)  # loop filter levels
        if update_map:
            for _ in range(3):
                if bits.number(1):
                    bits.number(8)
    bits.number(1 + 6 + 3)  # loop filter type, level, sharpness
    if bits.number(1) and bits.number(1):  # loop filter deltas, updated
        for _ in range(8):
            bits.optional(6)
    bits.number(2)  # partitions
    base = bits.number(7)
    quantisers = [s if absolute else base + s for s in segments] or [base]
    mean = sum(min(max(q, 0), 127) for q in quantisers) / len(quantisers)
    linear = (1 - mean / 127) ** 3
    x = linear * 1.5 if linear < 0.5 else (linear + 1) / 2
    return min(max(100 * x, 1.0), 100.0)


class _Bits:
    """The boolean decoder (RFC 6386, 7.3) with even odds; zeros follow the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._value = int.from_bytes(data[:2], "big")
        self._at = 2
        self._range = 255
        self._shifted = 0

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) >> 1)
        bit = int(self._value >= split << 8)
        if bit:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifted += 1
            if self._shifted == 8:
                self._shifted = 0
                self._value |= self._data[self._at] if self._at < len(self._data) else 0
                self._at += 1
        return bit

    def number(self, count: int) -> int:
        """An unsigned number of `count` bits, the highest first."""
        value = 0
        for _ in range(count):
            value = value << 1 | self._bit()
        return value

    def optional(self, count: int) -> int:
        """A flag, then, if it is set, a number of `count` bits and its sign; 0 otherwise."""
        if not self.number(1):
            return 0
        value = self.number(count)
        return -value if self.number(1) else value
