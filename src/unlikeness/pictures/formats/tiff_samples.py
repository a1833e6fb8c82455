"""From a TIFF directory's strips or tiles to the samples of the picture, as integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from unlikeness.pictures.colour import Pixels
from unlikeness.pictures.formats.base import Unusable
from unlikeness.pictures.formats.tiff_bytes import LOSSLESS, NONE, PACKBITS, Bytes, unpack
from unlikeness.pictures.formats.tiff_container import Directory, Order
from unlikeness.pictures.paged import empty, let_go

__all__ = ["check_overlap", "is_predicted", "read_samples"]

_SHARED = 16 << 20
"""Bytes that may be used again beyond once: some programs store equal tiles once."""
_BAND_BYTES = 1 << 24
_PREDICTING = LOSSLESS - {NONE, PACKBITS}


def read_samples(data: bytes, page: Directory, channels: int, bits: int) -> Pixels:
    """H × W × `channels`, uint8 or uint16 in native byte order, prediction undone.

    page: a directory with a lossless compression, and with 8 or 16 `bits` in every sample. Strips and tiles
    are the same thing here: boxes of whole rows or of a fixed size, in reading order, once, or once a channel
    where the planes are separate (TIFF 6.0, sections 3, 14 and 15; tag 284). Raises Unusable where they do
    not cover the picture.
    """
    width, height = page.number(256, 0), page.number(257, 0)
    tiled = 324 in page.tags
    box_width = page.number(322, 0) if tiled else width
    box_height = page.number(323, 0) if tiled else min(page.number(278, height), height)
    starts = page.numbers(324 if tiled else 273)
    sizes = page.numbers(325 if tiled else 279)
    planar = page.number(284, 1) == 2 and channels > 1
    if box_width < 1 or box_height < 1 or box_width * box_height > 16 * (width * height + (1 << 20)):
        raise Unusable("it is damaged (its tiles make no sense); copy or export it again")
    across, down = -(-width // box_width), -(-height // box_height)
    planes = channels if planar else 1
    if not sizes and page.number(259, 1) == 1 and len(starts) == 1:
        sizes = (len(data) - starts[0],)
    if len(starts) < across * down * planes or len(sizes) < len(starts):
        raise Unusable("it is damaged (pixels are missing); copy or export it again")
    dtype = np.dtype(f"u{bits // 8}")
    depth = 1 if planar else channels
    pixels: Pixels = empty((height, width, channels), dtype)
    source = memoryview(data)
    predicted = is_predicted(page)
    index = 0
    for plane in range(planes):
        into = pixels[..., plane : plane + 1] if planar else pixels
        for y in range(0, down * box_height, box_height):
            for x in range(0, across * box_width, box_width):
                rows = box_height if tiled else min(box_height, height - y)
                part = source[starts[index] : starts[index] + sizes[index]]
                raw = unpack(part, rows, box_width * depth * (bits // 8), page.number(259, 1))
                # A strip may be the whole picture: some rows at a time are turned into samples.
                step = max(1, _BAND_BYTES // raw.shape[1])
                seen = min(rows, height - y)
                for top in range(0, seen, step):
                    end = min(top + step, seen)
                    box = _samples(raw[top:end], dtype, page.order, depth, predicted)
                    into[y + top : y + end, x : x + box_width] = box[:, : width - x]
                    let_go(pixels)
                index += 1
    return pixels


def check_overlap(data: bytes, page: Directory) -> None:
    """Refuse strips or tiles that use the same bytes of the file again and again, before any is decoded."""
    for starts, sizes in ((273, 279), (324, 325)):
        extents = zip(page.numbers(starts), page.numbers(sizes), strict=False)
        if sum(max(min(size, len(data) - at), 0) for at, size in extents) > 2 * len(data) + _SHARED:
            raise Unusable("it is damaged (its strips or tiles overlap); copy or export it again")


def is_predicted(page: Directory) -> bool:
    """Whether samples are stored as differences: tag 317 says so, and counts with LZW and what came after it
    alone; libtiff, and so Pillow, pass over it elsewhere."""
    return page.number(317, 1) == 2 and page.number(259, 1) in _PREDICTING


def _samples(raw: Bytes, dtype: np.dtype[Any], order: Order, depth: int, predicted: bool) -> Pixels:
    """Rows of bytes -> rows × columns × depth. Prediction 2 stores differences to the left neighbour, modulo
    2^bits (TIFF 6.0, section 14).
    """
    values = (
        np.ascontiguousarray(raw).view(dtype.newbyteorder(order)).astype(dtype).reshape(len(raw), -1, depth)
    )
    return np.cumsum(values, axis=1, dtype=dtype) if predicted else values
