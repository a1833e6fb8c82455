"""AVIF, by Pillow: 8 bits, the source's chroma subsampling, EXIF, ICC and XMP.

What the values mean (primaries, transfer function) is taken over from the source, since Pillow writes sRGB.
AVIF keeps its orientation in the container (irot and imir), which Pillow shows as the EXIF tag and writes
back; an EXIF block that has the tag itself is set anew without it, all others keep their bytes but those of a
thumbnail. The quality of the source is not in the file: `QUALITY` is used. Said in the note: more than 8
bits, the thumbnail, alpha (coded, so not exact).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

from PIL import features
from PIL.AvifImagePlugin import AvifImageFile

from unlikeness.pictures.colour import ColourModel, Pixels
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
from unlikeness.pictures.formats.previews import NOTE, exif_without

__all__ = ["QUALITY", "read"]

QUALITY = 90
_NCLX = b"colrnclx"
_MODES = {"L": ColourModel("grey"), "RGB": ColourModel("rgb"), "RGBA": ColourModel("rgb", "straight")}


@dataclass(frozen=True, slots=True)
class _Avif:
    mode: str
    subsampling: str
    metadata: dict[str, bytes]
    colours: bytes | None

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        image, coded = to_pillow(self.mode, pixels), io.BytesIO()
        image.save(coded, "AVIF", quality=QUALITY, subsampling=self.subsampling, **self.metadata)
        target.write(_described(coded.getvalue(), self.colours))


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
    depth, subsampling = _coding(data)
    if image.mode == "L":
        subsampling = "4:0:0"
    metadata = {
        key: image.info[key]
        for key in ("exif", "icc_profile", "xmp")
        if isinstance(image.info.get(key), bytes) and image.info[key]
    }
    exif = metadata.get("exif", b"")
    if exif:
        metadata["exif"] = exif_without(exif)
    orientation = exif_orientation(image)
    pixels = to_array(image)
    note = joined(
        f"{depth}-bit AVIF written with 8 bits" if depth > 8 else None,
        NOTE if metadata.get("exif", b"") != exif else None,
        "alpha coded with the picture, not exact" if image.mode == "RGBA" else None,
    )
    writer = _Avif(image.mode, subsampling, metadata, _colours(data))
    return Raster(pixels, _MODES[image.mode], writer, lossless=False, orientation=orientation, note=note)


def _colours(data: bytes) -> bytes | None:
    """Primaries and transfer function, two bytes each, of the first box that names them (ISO/IEC 14496-12,
    12.1.5, with the numbers of ITU-T H.273); None without one."""
    at = data.find(_NCLX)
    return data[at + len(_NCLX) : at + len(_NCLX) + 4] if 0 <= at <= len(data) - len(_NCLX) - 4 else None


def _described(coded: bytes, colours: bytes | None) -> bytes:
    """The file with these in place of the encoder's, which takes all colours for sRGB's. How colours became
    YCbCr, which the box names too, is the encoder's."""
    at = coded.find(_NCLX)
    if colours is None or at < 0:
        return coded
    at += len(_NCLX)
    return coded[:at] + colours + coded[at + 4 :]


def _coding(data: bytes) -> tuple[int, str]:
    """Bits a sample and chroma subsampling from the first av1C box (AV1 in ISOBMFF, section 2.3.3)."""
    at = data.find(b"av1C")
    flags = data[at + 6] if 0 <= at < len(data) - 6 else 0x0C
    depth = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if flags & 0x10:
        return depth, "4:0:0"
    return depth, {0x00: "4:4:4", 0x08: "4:2:2"}.get(flags & 0x0C, "4:2:0")
