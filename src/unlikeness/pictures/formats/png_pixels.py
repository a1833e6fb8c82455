"""PNG pixels: read to their own integers of 8 or 16 bits, and written with filters by numpy and zlib.

Pillow's own PNG reader reduces 16-bit colour to 8 bits. Its C decoder does not have to. For
rows as "RGB;16B" it gives the high byte of each big-endian sample, for "RGB;16L" the low one. So two passes
give all 16 bits. Grey with alpha has four bytes a pixel and is read as "RGBA".
"""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from unlikeness.pictures.colour import Pixels
from unlikeness.pictures.formats.base import to_array
from unlikeness.pictures.limits import Unusable

__all__ = [
    "GREY", "GREY_ALPHA", "PALETTE", "RGB", "RGB_ALPHA", "SIGNATURE", "Parts", "chunk", "decode",
    "from_palette", "with_alpha", "write_pixels",
]  # fmt: skip

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_EIGHT = {GREY: "L", RGB: "RGB", GREY_ALPHA: "LA", RGB_ALPHA: "RGBA"}
_STREAMED = 32 << 20
"""Bytes from which on compressed pixels are read where they lie, without a copy in one piece."""
_LEVEL = 6
_BAND_BYTES = 1 << 20

Bytes = NDArray[np.uint8]


def chunk(target: BinaryIO, kind: bytes, body: bytes) -> None:
    """Write one chunk: length, kind, body, CRC-32 of both."""
    target.write(struct.pack(">I", len(body)) + kind + body)
    target.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))


def write_pixels(pixels: Pixels, target: BinaryIO) -> None:
    """Write H × W × C uint8 or uint16 as IDAT chunks, not interlaced.

    Each row takes the filter (none, sub, up, Paeth) with the smallest sum of absolute differences, the
    heuristic of the PNG specification, section 12.7.
    """
    height, width, channels = pixels.shape
    unit = channels * pixels.dtype.itemsize
    band = max(1, _BAND_BYTES // (width * unit))
    above = np.zeros(width * unit, np.uint8)
    packer = zlib.compressobj(_LEVEL)
    for top in range(0, height, band):
        part = np.ascontiguousarray(pixels[top : top + band])
        big = part.astype(">u2") if part.dtype.itemsize == 2 else part
        rows = big.reshape(len(part), -1).view(np.uint8)
        packed = packer.compress(_filtered(rows, above, unit).tobytes())
        if packed:
            chunk(target, b"IDAT", packed)
        above = rows[-1].copy()
    chunk(target, b"IDAT", packer.flush())


def _filtered(rows: Bytes, above: Bytes, unit: int) -> Bytes:
    """n × m bytes, the row above, bytes a pixel -> n × (1 + m): filter type and filtered bytes by row."""
    up = np.vstack((above, rows[:-1]))
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, unit:] = rows[:, :-unit]
    corner[:, unit:] = up[:, :-unit]
    best = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    best[:, 0], best[:, 1:] = 0, rows
    cost = _cost(rows)
    for kind, guess in ((1, left), (2, up), (4, _paeth(left, up, corner))):
        candidate = rows - guess
        price = _cost(candidate)
        better = price < cost
        best[better, 0] = kind
        best[better, 1:] = candidate[better]
        cost = np.minimum(cost, price)
    return best


def _cost(rows: Bytes) -> NDArray[np.int64]:
    """Sum of the bytes taken as signed numbers, without sign."""
    price: NDArray[np.int64] = np.minimum(rows, (0 - rows).astype(np.uint8)).sum(axis=1, dtype=np.int64)
    return price


def _paeth(left: Bytes, up: Bytes, corner: Bytes) -> Bytes:
    """The neighbour closest to left + up - corner (PNG specification, section 9.4)."""
    a, b, c = (x.astype(np.int16) for x in (left, up, corner))
    from_left, from_up, from_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - c - c)
    nearest = np.where(from_up <= from_corner, up, corner)
    chosen: Bytes = np.where((from_left <= from_up) & (from_left <= from_corner), left, nearest)
    return chosen


def decode(
    idat: Sequence[bytes], size: tuple[int, int], depth: int, colour_type: int, interlaced: int
) -> Pixels:
    """The stored samples: H × W × C uint8 or uint16. Grey below 8 bits is scaled up, indices are not."""
    joined_up: list[bytes] = []

    def image(mode: str, raw: str) -> Image.Image:
        if not joined_up:
            joined_up.append(b"".join(idat))
        return Image.frombytes(mode, size, joined_up[0], "zip", raw, interlaced)

    def rows(mode: str, raw: str) -> Pixels:
        return to_array(image(mode, raw))

    if colour_type == PALETTE and depth in (1, 2, 4, 8):
        return rows("P", "P" if depth == 8 else f"P;{depth}")
    if colour_type == GREY and depth == 1:
        return rows("1", "1") * np.uint8(255)
    if colour_type == GREY and depth in (2, 4):
        return rows("L", f"L;{depth}")
    if colour_type in _EIGHT and depth == 8:
        if sum(map(len, idat)) >= _STREAMED:
            return to_array(_streamed(idat, size, colour_type, interlaced))
        return rows(_EIGHT[colour_type], _EIGHT[colour_type])
    if colour_type == GREY and depth == 16:
        return np.array(image("I;16", "I;16B"), dtype=np.uint16)[..., None]
    if colour_type == GREY_ALPHA and depth == 16:
        return rows("RGBA", "RGBA").view(">u2").astype(np.uint16)
    if colour_type in (RGB, RGB_ALPHA) and depth == 16:
        mode = _EIGHT[colour_type]
        pixels = rows(mode, f"{mode};16B").astype(np.uint16)
        pixels <<= 8
        pixels |= rows(mode, f"{mode};16L")
        return pixels
    raise Unusable(
        f"its header is damaged (colour type {colour_type}, {depth} bits); copy or export it again"
    )


def _streamed(idat: Sequence[bytes], size: tuple[int, int], colour_type: int, interlaced: int) -> Image.Image:
    """Pixels of 8 bits a sample, decoded from chunks where they lie."""
    header = io.BytesIO()
    header.write(SIGNATURE)
    chunk(header, b"IHDR", struct.pack(">IIBBBBB", *size, 8, colour_type, 0, 0, interlaced))
    parts: list[bytes] = [header.getvalue()]
    for body in idat:
        check = zlib.crc32(body, zlib.crc32(b"IDAT"))
        parts += [struct.pack(">I4s", len(body), b"IDAT"), body, struct.pack(">I", check)]
    end = io.BytesIO()
    chunk(end, b"IEND", b"")
    parts.append(end.getvalue())
    return PngImageFile(cast(BinaryIO, Parts(parts)))


def from_palette(indices: Pixels, plte: bytes, trns: bytes | None) -> Pixels:
    """Palette indices H × W × 1 -> RGB, or RGBA with transparency. Indices without a colour are black."""
    colours = np.zeros((256, 3), np.uint8)
    given = np.frombuffer(plte[: min(len(plte), 768) // 3 * 3], np.uint8).reshape(-1, 3)
    colours[: len(given)] = given
    if trns is not None:
        alpha = np.full(256, 255, np.uint8)
        alpha[: min(len(trns), 256)] = np.frombuffer(trns[:256], np.uint8)
        colours = np.column_stack((colours, alpha))
    return colours[indices[..., 0]]


def with_alpha(pixels: Pixels, trns: bytes, depth: int) -> Pixels:
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


class Parts(io.RawIOBase):
    """Pieces of bytes in different places of memory, read as one file. None is copied as a whole."""

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = [memoryview(part) for part in parts if len(part)]
        self._starts = [0, *accumulate(len(part) for part in self._parts)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, or fewer at the end; the rest for a negative size."""
        end = self._starts[-1] if size < 0 else min(self._at + size, self._starts[-1])
        found = []
        while self._at < end:
            number = bisect_right(self._starts, self._at) - 1
            part, start = self._parts[number], self._starts[number]
            piece = part[self._at - start : end - start]
            found.append(piece)
            self._at += len(piece)
        return b"".join(found)
