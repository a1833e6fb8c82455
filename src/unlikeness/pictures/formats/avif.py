"""AVIF, by Pillow: 8 bits, the source's chroma subsampling, EXIF, ICC, XMP and what describes the picture.

Pillow writes EXIF anew where it has an orientation tag, takes all colours for sRGB's and drops what it does
not know. So its file is mended (`heif_edit`). EXIF is the source's, byte for byte, but for a thumbnail and
the orientation tag, which is set to upright: AVIF keeps the turn in the container (irot and imir). Primaries
and transfer function are the source's, in the container and in the coded picture. The crop (clap), the shape
of a pixel (pasp) and light levels are as they were. A crop is not applied; Pillow does not apply it either.

The quality of the source is not in the file: `QUALITY` is used. Said in the note: more than 8 bits, the
thumbnail, alpha (coded, so not exact), a crop, and all that is left out (`heif_notes`).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image, features
from PIL.AvifImagePlugin import AvifImageFile

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats.av1_colours import colours_of, with_colours
from unlikeness.pictures.formats.base import (
    ANIMATED,
    Raster,
    Unusable,
    check_size,
    exif_orientation,
    joined,
    to_array,
    to_pillow,
)
from unlikeness.pictures.formats.heif_container import Container, read_container
from unlikeness.pictures.formats.heif_damage import check_coded
from unlikeness.pictures.formats.heif_edit import with_item, with_properties
from unlikeness.pictures.formats.heif_metadata import Metadata, crop_note, metadata_of, upright

__all__ = ["QUALITY", "read"]

QUALITY = 90
_UNSPECIFIED = 2
_MODES = {"L": ColourModel("grey"), "RGB": ColourModel("rgb"), "RGBA": ColourModel("rgb", "straight")}
_ORIENTATION, _DESCRIPTION = 0x0112, 0x010E
_TIFF = (b"II*\0", b"MM\0*", b"Exif\0\0")


@dataclass(frozen=True, slots=True)
class _Avif:
    mode: str
    subsampling: str
    metadata: Metadata
    icc: bytes | None
    orientation: int
    colours: tuple[int, int] | None

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        image, buffer = to_pillow(self.mode, pixels), io.BytesIO()
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
        """What makes Pillow write the turn, and EXIF where there is any: the source's if it can stay so."""
        tags = Image.Exif()
        if self.orientation > 1:
            tags[_ORIENTATION] = self.orientation
        elif exif[4:].startswith(_TIFF) and b"\x01\x12" not in exif and b"\x12\x01" not in exif:
            return exif[4:]
        if exif:
            tags[_DESCRIPTION] = "set below"
        return tags


def read(data: bytes, max_pixels: int) -> Raster:
    """Decode an AVIF file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    if not features.check("avif"):
        raise Unusable("this Pillow lacks AVIF; install Pillow's own wheel, pip install -U pillow")
    image = AvifImageFile(io.BytesIO(data))
    check_size(*image.size, max_pixels)
    if getattr(image, "is_animated", False):
        raise Unusable(ANIMATED)
    if image.mode not in _MODES:
        raise Unusable(f"its colours ({image.mode}) are not understood; export it as PNG")
    container = read_container(data)
    check_coded(container)
    depth, subsampling = _coding(data)
    if image.mode == "L":
        subsampling = "4:0:0"
    metadata = metadata_of(container, alpha=image.mode == "RGBA")
    orientation = exif_orientation(image)
    pixels = to_array(image)
    note = joined(
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
    return Raster(pixels, _MODES[image.mode], writer, lossless=False, orientation=orientation, note=note)


def _colours(container: Container, described: bytes | None) -> tuple[int, int] | None:
    """Primaries and transfer function (numbers of ITU-T H.273) of the container or else of the coded picture;
    None where neither names both.
    """
    if described is not None:
        found: tuple[int, ...] | None = struct.unpack_from(">HH", described, 12)
    else:
        found = colours_of(container.content(_first_part(container)))
    return None if found is None or _UNSPECIFIED in found or max(found) > 255 else (found[0], found[1])


def _first_part(container: Container) -> int:
    """The primary picture's item, or the first that it is put together from."""
    parts = [b for kind, a, b in container.references if kind == b"dimg" and a == container.primary]
    return parts[0] if parts else container.primary


def _described(coded: bytes, primaries: int, transfer: int) -> bytes:
    """The file with these in place of the encoder's, in the container and in the coded picture. How colours
    became YCbCr, which both name too, is the encoder's.
    """
    container = read_container(coded)
    result = bytearray(coded)
    for box in container.properties_of(container.primary):
        if box.kind == b"colr" and coded[box.body : box.body + 4] == b"nclx":
            struct.pack_into(">HH", result, box.body + 4, primaries, transfer)
    if colours_of(container.content(container.primary)) == (primaries, transfer):
        return bytes(result)
    (extent,) = container.locations[container.primary].extents
    picture = with_colours(container.content(container.primary), primaries, transfer)
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
