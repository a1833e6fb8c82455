"""Writing PNG pixels of 8 or 16 bits: filters by numpy, a band of rows at a time, and zlib."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from unlikeness.pictures.colour import Pixels

__all__ = ["SIGNATURE", "chunk", "write_pixels"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
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
        packed = packer.compress(filtered(rows, above, unit).tobytes())
        if packed:
            chunk(target, b"IDAT", packed)
        above = rows[-1].copy()
    chunk(target, b"IDAT", packer.flush())


def filtered(rows: Bytes, above: Bytes, unit: int) -> Bytes:
    """n × m bytes, the row above them, bytes a pixel -> n × (1 + m): filter type and filtered bytes of each
    row.
    """
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
