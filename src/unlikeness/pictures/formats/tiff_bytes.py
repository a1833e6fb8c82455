"""Losslessly compressed TIFF strips and tiles as plain bytes, by way of Pillow's libtiff.

Pillow turns 16-bit colour into 8 bits, but libtiff's lossless schemes do not care what the bytes mean. So
strips are wrapped in a small TIFF file in memory that declares 8-bit grey rows as wide as the real rows have
bytes: what comes out (or goes in) is exactly the byte stream, for any sample size, channel count and byte
order.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from unlikeness.pictures.formats.base import Unusable
from unlikeness.pictures.formats.quiet import quiet
from unlikeness.pictures.formats.tiff_container import (
    Directory,
    numbers_tag,
    read_directories,
    write_directory,
)

__all__ = ["LOSSLESS", "NONE", "PACKBITS", "pack", "unpack"]

NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
LOSSLESS = frozenset({NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD})
_NAMES = {LZW: "tiff_lzw", PACKBITS: "packbits", LZMA: "lzma", ZSTD: "zstd"}

_STEP = 1 << 16

Bytes = NDArray[np.uint8]


def unpack(part: bytes | memoryview, rows: int, width: int, compression: int) -> Bytes:
    """One compressed strip or tile -> rows × width bytes. Raises Unusable if there are too few."""
    need = rows * width
    if compression == NONE:
        raw: bytes | memoryview = part
    elif compression in (DEFLATE, OLD_DEFLATE):
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(part, need)
        left = need
        while not unpacker.eof and unpacker.unconsumed_tail and left > 0:
            # On to the checksum, which is compared there; some programs fill the last strip up.
            left -= len(unpacker.decompress(unpacker.unconsumed_tail, _STEP)) or _STEP
    else:
        raw = _by_libtiff(part, rows, width, compression)
    if len(raw) < need:
        raise Unusable("it is truncated or damaged (too few pixels); copy or export it again")
    return np.frombuffer(raw, np.uint8, need).reshape(rows, width)


def _by_libtiff(part: bytes | memoryview, rows: int, width: int, compression: int) -> bytes:
    file = io.BytesIO()
    file.write(b"II*\0\0\0\0\0" + part)
    tags = {
        256: width, 257: rows, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: rows, 279: len(part)
    }  # fmt: skip
    directory = Directory("<", {number: numbers_tag("<", [value]) for number, value in tags.items()})
    at = write_directory(directory, file)
    file.seek(4)
    file.write(struct.pack("<I", at))
    file.seek(0)
    with quiet():
        return TiffImageFile(file).tobytes()


def pack(rows: Bytes, compression: int) -> bytes:
    """(rows, bytes a row) -> one compressed strip. `compression` is one of LOSSLESS."""
    if compression == NONE:
        return rows.tobytes()
    if compression in (DEFLATE, OLD_DEFLATE):
        return zlib.compress(rows.tobytes())
    height, width = rows.shape
    buffer = io.BytesIO()
    image = Image.frombuffer("L", (width, height), np.ascontiguousarray(rows), "raw", "L", 0, 1)
    image.save(buffer, "TIFF", compression=_NAMES[compression], tiffinfo={278: height, 317: 1})
    data = buffer.getvalue()
    page = read_directories(data)[0]
    starts, sizes = page.numbers(273), page.numbers(279)
    if len(starts) != 1:
        raise OSError("libtiff did not write one strip")
    return data[starts[0] : starts[0] + sizes[0]]
