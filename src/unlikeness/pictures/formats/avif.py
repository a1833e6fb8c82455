"""AVIF, by Pillow: 8 bits, the source's chroma subsampling, EXIF, ICC, XMP and descriptions of the picture.

Pillow rewrites EXIF that has an orientation tag, takes all colours for sRGB and drops what it does not know.
So its file is corrected (`heif_metadata`). EXIF stays the source's, byte for byte, except for a thumbnail and
the orientation tag, which becomes upright: AVIF keeps the turn in the container (irot and imir). Primaries
and transfer function stay the source's, in the container and in the coded picture: programs differ in which
of the two they read. The crop (clap), the shape of a pixel (pasp) and light levels stay. A crop is not
applied; Pillow does not apply it either.

The file does not hold its quality, so `QUALITY` is used. The note names more than 8 bits, the thumbnail,
alpha (coded, so not exact), a crop, and all that is left out.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image, features
from PIL.AvifImagePlugin import AvifImageFile

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats import base
from unlikeness.pictures.formats.heif import Container, check_coded, read_container
from unlikeness.pictures.formats.heif_metadata import (
    Metadata,
    crop_note,
    metadata_of,
    upright,
    with_item,
    with_properties,
)
from unlikeness.pictures.limits import Unusable

__all__ = ["QUALITY", "colours_of", "read"]

QUALITY = 90
_UNSPECIFIED = 2
_MODES = {"L": ColourModel("grey"), "RGB": ColourModel("rgb"), "RGBA": ColourModel("rgb", "straight")}
_ORIENTATION, _DESCRIPTION = 0x0112, 0x010E
_TIFF = (b"II*\0", b"MM\0*", b"Exif\0\0")
_SEQUENCE = 1
_IDENTITY = 0


@dataclass(frozen=True, slots=True)
class _Avif:
    mode: str
    subsampling: str
    metadata: Metadata
    icc: bytes | None
    orientation: int
    colours: tuple[int, int] | None

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        image, buffer = base.to_pillow(self.mode, pixels), io.BytesIO()
        exif = upright(self.metadata.exif)
        given: dict[str, Any] = {"exif": self._exif(exif), "icc_profile": self.icc, "xmp": self.metadata.xmp}
        given = {key: value for key, value in given.items() if value}
        image.save(buffer, "AVIF", quality=QUALITY, subsampling=self.subsampling, **given)
        coded = buffer.getvalue()
        if exif:
            coded = with_item(coded, b"Exif", exif)
        if self.colours is not None:
            coded = _described(coded, *self.colours)
        target.write(with_properties(coded, self.metadata.properties, self.metadata.crop))

    def _exif(self, exif: bytes) -> bytes | Image.Exif:
        """EXIF that makes Pillow write the turn: the source's if it can stay, or a stand-in."""
        tags = Image.Exif()
        if self.orientation > 1:
            tags[_ORIENTATION] = self.orientation
        elif exif[4:].startswith(_TIFF) and b"\x01\x12" not in exif and b"\x12\x01" not in exif:
            return exif[4:]
        if exif:
            tags[_DESCRIPTION] = "set below"
        return tags


def read(data: bytes, max_pixels: int) -> base.Raster:
    """Decode an AVIF file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    if not features.check("avif"):
        raise Unusable("this Pillow lacks AVIF; install Pillow's own wheel, pip install -U pillow")
    image = AvifImageFile(io.BytesIO(data))
    base.check_size(*image.size, max_pixels)
    if getattr(image, "is_animated", False):
        raise Unusable(base.ANIMATED)
    if image.mode not in _MODES:
        raise Unusable(f"its colours ({image.mode}) are not understood; export it as PNG")
    container = read_container(data)
    check_coded(container)
    depth, subsampling = _coding(data)
    if image.mode == "L":
        subsampling = "4:0:0"
    metadata = metadata_of(container, alpha=image.mode == "RGBA")
    orientation = base.exif_orientation(image)
    pixels = base.to_array(image)
    note = base.joined(
        f"{depth}-bit AVIF written with 8 bits" if depth > 8 else None,
        "alpha coded with the picture, not exact" if image.mode == "RGBA" else None,
        crop_note(metadata.crop, image.size),
        *metadata.notes,
    )
    writer = _Avif(
        image.mode,
        subsampling,
        metadata,
        image.info.get("icc_profile"),
        orientation,
        _colours(container, metadata.colours),
    )
    return base.Raster(pixels, _MODES[image.mode], writer, lossless=False, orientation=orientation, note=note)


def _colours(container: Container, described: bytes | None) -> tuple[int, int] | None:
    """Primaries and transfer function (ITU-T H.273) of the container or the coded picture, or None."""
    if described is not None:
        found: tuple[int, ...] | None = struct.unpack_from(">HH", described, 12)
    else:
        found = colours_of(container.content([*container.parts_of_primary(), container.primary][0]))
    return None if found is None or _UNSPECIFIED in found or max(found) > 255 else (found[0], found[1])


def _described(coded: bytes, primaries: int, transfer: int) -> bytes:
    """The file with these instead of the encoder's, in the container and in the coded picture.

    The way from colours to YCbCr, which both name too, stays the encoder's.
    """
    container = read_container(coded)
    result = bytearray(coded)
    for box in container.properties_of(container.primary):
        if box.kind == b"colr" and coded[box.body : box.body + 4] == b"nclx":
            struct.pack_into(">HH", result, box.body + 4, primaries, transfer)
    if colours_of(container.content(container.primary)) == (primaries, transfer):
        return bytes(result)
    (extent,) = container.locations[container.primary].extents
    picture = _with_colours(container.content(container.primary), primaries, transfer)
    result[extent.offset : extent.offset + extent.length] = picture
    return bytes(result)


def _coding(data: bytes) -> tuple[int, str]:
    """Bits a sample and chroma subsampling from the first av1C box (AV1 in ISOBMFF, section 2.3.3)."""
    at = data.find(b"av1C")
    flags = data[at + 6] if 0 <= at < len(data) - 6 else 0x0C
    depth = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if flags & 0x10:
        return depth, "4:0:0"
    return depth, {0x00: "4:4:4", 0x08: "4:2:2"}.get(flags & 0x0C, "4:2:0")


def colours_of(picture: bytes) -> tuple[int, int] | None:
    """Primaries and transfer function (ITU-T H.273) in an AV1 picture's sequence header, or None."""
    place = _place(picture)
    if place is None:
        return None
    bits = _Bits(picture, place)
    return bits.take(8), bits.take(8)


def _with_colours(picture: bytes, primaries: int, transfer: int) -> bytes:
    """An AV1 picture with these numbers, 0 to 255, in its sequence header. OSError if there is no place."""
    place = _place(picture)
    if place is None or _Bits(picture, place + 16).take(8) == _IDENTITY:
        raise OSError("the encoder does not describe colours")
    head = picture[: (place + 24) // 8]
    shift = 8 * len(head) - place - 16
    bits = int.from_bytes(head, "big") & ~(0xFFFF << shift) | (primaries << 8 | transfer) << shift
    return bits.to_bytes(len(head), "big") + picture[len(head) :]


def _place(picture: bytes) -> int | None:
    """The bit at which the description of colours begins, or None (AV1 specification, 5.3 and 5.5)."""
    at = 0
    for _ in range(16):
        if at + 2 > len(picture):
            return None
        head, at = picture[at], at + 1 + (picture[at] >> 2 & 1)
        size = len(picture) - at
        if head & 2:  # its size follows, seven bits a byte
            size = 0
            for i in range(8):
                byte = picture[at] if at < len(picture) else 0
                size, at = size | (byte & 0x7F) << (7 * i), at + 1
                if not byte & 0x80:
                    break
        if head >> 3 & 15 == _SEQUENCE:
            return _description(_Bits(picture[: at + size], 8 * at))
        at += size
    return None


@dataclass
class _Bits:
    """Numbers of any bits from the bit `at` on, the highest bit first; zeros follow the data."""

    data: bytes
    at: int

    def take(self, count: int) -> int:
        first, last = self.at // 8, (self.at + count + 7) // 8
        self.at += count
        part = self.data[first:last].ljust(last - first, b"\0")
        return int.from_bytes(part, "big") >> (8 * last - self.at) & ((1 << count) - 1)


def _description(bits: _Bits) -> int | None:
    """The bit behind the header's fields up to the description, as the specification names them (5.5.1)."""
    profile, _still, reduced = bits.take(3), bits.take(1), bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _operating_points(bits)
    width, height = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width + height)
    if not reduced and bits.take(1):  # frame_id_numbers_present_flag
        bits.take(7)
    bits.take(3)
    if not reduced:
        _tools(bits)
    bits.take(3)  # enable_superres, enable_cdef, enable_restoration
    if bits.take(1) and profile == 2:  # high_bitdepth
        bits.take(1)
    if profile != 1:
        bits.take(1)  # mono_chrome
    return bits.at if bits.take(1) and bits.at + 24 <= 8 * len(bits.data) else None


def _operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):  # a number in uvlc
            zeros = 0
            while zeros < 32 and not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder_model_info_present_flag
            delay = bits.take(5) + 1
            bits.take(42)
    display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if display_delay and bits.take(1):
            bits.take(4)


def _tools(bits: _Bits) -> None:
    bits.take(4)  # enable_interintra_compound to enable_dual_filter
    order_hint = bits.take(1)
    if order_hint:
        bits.take(2)
    screen_content = 2 if bits.take(1) else bits.take(1)
    if screen_content and not bits.take(1):
        bits.take(1)
    if order_hint:
        bits.take(3)
