"""BMP: 24-bit, 32-bit and grey files are written into a copy of their own bytes; the rest becomes 24-bit.

The layout (BITMAPINFOHEADER to BITMAPV5HEADER) is read only to find uncompressed rows of whole bytes. Header,
palette, masks, embedded ICC profile, padding and the unused fourth byte then keep their bits. Pillow decodes
other BMP files (palette, run lengths, 16 bits a pixel), which are written with 24 bits or 8-bit grey; the
note says so. Headers that describe colours (BITMAPV4HEADER and BITMAPV5HEADER) are kept, with ICC profiles.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats import base
from unlikeness.pictures.limits import Unusable

__all__ = ["read"]

_V4, _V5 = 108, 124
_PROFILES = (b"DEBM", b"KNIL")
"""Colour spaces with a profile in the file, or the name of its file: "MBED" and "LINK", backwards."""
_TO_MODE = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Uncompressed rows in a file. order: the byte of each channel in a pixel of `unit` bytes."""

    head: bytes
    tail: bytes
    padding: bytes
    unit: int
    order: tuple[int, ...]
    bottom_up: bool
    unused: Pixels | None
    """The fourth bytes of 32-bit pixels without alpha."""

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        height, width = pixels.shape[:2]
        pad = -width * self.unit % 4
        rows = np.empty((height, width * self.unit + pad), np.uint8)
        units = rows[:, : width * self.unit].reshape(height, width, self.unit)
        if self.unused is not None:
            units[..., 3] = self.unused
        units[..., list(self.order)] = pixels
        rows[:, : width * self.unit] = units.reshape(height, -1)
        if pad:
            rows[:, width * self.unit :] = np.frombuffer(self.padding, np.uint8).reshape(height, pad)
        target.write(self.head)
        target.write(np.ascontiguousarray(rows[::-1] if self.bottom_up else rows).data)
        target.write(self.tail)


@dataclass(frozen=True, slots=True)
class _Plain:
    """A file that Pillow writes anew."""

    mode: str
    dpi: tuple[float, float] | None

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        options = {"dpi": self.dpi} if self.dpi else {}
        base.to_pillow(self.mode, pixels).save(target, "BMP", **options)


def read(data: bytes, max_pixels: int) -> base.Raster:
    """Decode a BMP file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    if len(data) < 54:
        raise Unusable("it is truncated; copy or export it again")
    offset, header = struct.unpack("<II", data[10:18])
    if header < 40:  # the OS/2 header of 12 bytes
        width, height, _, bits = struct.unpack("<HHHH", data[18:26])
        compression, bottom_up = 0, True
    else:
        width, height, _, bits, compression = struct.unpack("<iiHHI", data[18:34])
        bottom_up, height = height > 0, abs(height)
    base.check_size(width, height, max_pixels)
    image = BmpImageFile(io.BytesIO(data))
    order = _order(data, header, bits, compression)
    row = (width * bits // 8 + 3) // 4 * 4
    if image.mode == "L" and bits == 8 and compression == 0:
        order = (0,)
    if order is not None and offset >= 14 + header and offset + row * height <= len(data):
        return _rows(data, (width, height), offset, bits // 8, order, bottom_up)
    mode = _TO_MODE.get(image.mode)
    if mode is None:
        raise Unusable(f"this kind of BMP ({bits} bits, {image.mode}) cannot be written; save it as PNG")
    pixels = base.to_array(image if image.mode == mode else image.convert(mode))
    note = f"{bits}-bit BMP written as {'8-bit grey' if mode == 'L' else '24-bit'} BMP"
    model = ColourModel("grey" if mode == "L" else "rgb")
    if header in (_V4, _V5):
        described, left_out = _described(data, header, (width, height), mode)
        return base.Raster(pixels, model, described, True, note=base.joined(note, left_out))
    return base.Raster(pixels, model, _Plain(mode, image.info.get("dpi")), True, note=note)


def _described(data: bytes, header: int, size: tuple[int, int], mode: str) -> tuple[_Rows, str | None]:
    """A writer of 24-bit or 8-bit grey rows under the file's own header, and a note of a lost profile."""
    width, height = size
    unit = 1 if mode == "L" else 3
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256)) if unit == 1 else b""
    pad = -width * unit % 4
    pixels = (width * unit + pad) * height
    fields = bytearray(data[14 : 14 + header])
    struct.pack_into("<HII", fields, 14, 8 * unit, 0, pixels)  # bits, no compression, bytes
    struct.pack_into("<II", fields, 32, len(palette) // 4, 0)
    fields[40:56] = bytes(16)  # masks
    profile, note = b"", None
    if header == _V5 and fields[56:60] in _PROFILES:
        start, length = struct.unpack_from("<II", fields, 112)
        profile = data[14 + start : 14 + start + length]
        if not start or len(profile) < length:
            profile, note = b"", "its colour profile, which is cut off, left out"
    if header == _V5:
        place = header + len(palette) + pixels if profile else 0
        struct.pack_into("<II", fields, 112, place, len(profile))
    first = 14 + header + len(palette)
    file = struct.pack("<2sIHHI", b"BM", first + pixels + len(profile), 0, 0, first)
    order, bottom_up = (0,) if unit == 1 else (2, 1, 0), struct.unpack_from("<i", fields, 8)[0] > 0
    head = file + bytes(fields) + palette
    return _Rows(head, profile, bytes(pad * height), unit, order, bottom_up, None), note


def _order(data: bytes, header: int, bits: int, compression: int) -> tuple[int, ...] | None:
    """Positions of red, green, blue (and alpha) in a pixel's bytes; None if they are not whole bytes."""
    if bits in (24, 32) and compression == 0:
        return (2, 1, 0)
    if bits == 32 and compression in (3, 6) and len(data) >= 70:
        masks = struct.unpack("<IIII", data[54:70])
        places = {0xFF: 0, 0xFF00: 1, 0xFF0000: 2, 0xFF000000: 3}
        used = masks if masks[3] and (compression == 6 or header >= 56) else masks[:3]
        if all(mask in places for mask in used) and len(set(used)) == len(used):
            return tuple(places[mask] for mask in used)
    return None


def _rows(
    data: bytes, size: tuple[int, int], offset: int, unit: int, order: tuple[int, ...], bottom_up: bool
) -> base.Raster:
    """A raster of uncompressed rows from `offset` on, in pixels of `unit` bytes."""
    (width, height), row = size, (size[0] * unit + 3) // 4 * 4
    end = offset + row * height
    rows = np.frombuffer(data, np.uint8, row * height, offset).reshape(height, row)
    if bottom_up:
        rows = rows[::-1]
    units = rows[:, : width * unit].reshape(height, width, unit)
    unused = units[..., 3].copy() if unit == 4 and set(order) == {0, 1, 2} else None
    padding = rows[:, width * unit :].tobytes()
    writer = _Rows(data[:offset], data[end:], padding, unit, order, bottom_up, unused)
    model = ColourModel("grey" if len(order) == 1 else "rgb", "straight" if len(order) == 4 else "none")
    return base.Raster(units[..., list(order)].copy(), model, writer, True)
