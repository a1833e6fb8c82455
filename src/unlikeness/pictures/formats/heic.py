"""HEIC, by pillow-heif (the extra `heif`), loaded when the first such file is met.

libheif turns a picture upright itself (irot and imir) and writes the turn for the EXIF orientation, so EXIF
keeps all bytes but those of a thumbnail. It also applies a crop (clap). More than 8 bits are kept as 10 or,
by newer releases, 12. The shape of a pixel (pasp), light levels and the like are set afterwards
(`heif_metadata`). The file does not hold its quality, so `QUALITY` is used.

The note names further pictures (thumbnails, depth, gain maps), which would show the picture unprotected,
videos and everything else that is left out; a crop that was applied; alpha, which is coded, so not exact.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats import base
from unlikeness.pictures.formats.heif import check_coded, read_container
from unlikeness.pictures.formats.heif_metadata import (
    Metadata,
    coded_size,
    cut_note,
    metadata_of,
    with_item,
    with_properties,
)
from unlikeness.pictures.limits import Unusable

__all__ = ["QUALITY", "read"]

QUALITY = 90
_NUMBERS = ("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag")
_MATRIX, _FULL_RANGE = 6, 1
"""The way from colours to YCbCr where the source's is unknown: libheif's (BT.601)."""
_CHROMA = ("420", "422", "444")


@dataclass(frozen=True, slots=True)
class _Heic:
    mode: str
    colours: dict[str, Any]
    chroma: str
    described: Metadata
    beside: tuple[bytes, ...]
    """The box that names the colours beside an ICC profile: libheif reads and writes one of the two."""

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        import pillow_heif

        height, width = pixels.shape[:2]
        file = pillow_heif.from_bytes(self.mode, (width, height), np.ascontiguousarray(pixels).tobytes())
        file[0].info.update(self.colours)
        buffer = io.BytesIO()
        file.save(
            buffer,
            quality=QUALITY,
            chroma=self.chroma,
            exif=self.described.exif_block or None,
            xmp=self.described.xmp or None,
        )
        coded = buffer.getvalue()
        if self.described.exif:
            coded = with_item(coded, b"Exif", self.described.exif)
        target.write(with_properties(coded, [*self.described.properties, *self.beside]))


def read(data: bytes, max_pixels: int) -> base.Raster:
    """Decode a HEIC file's bytes. Raises Unusable, or what pillow-heif raises at damaged data."""
    try:
        import pillow_heif
    except ImportError as error:
        raise Unusable('HEIC needs an extra that is not installed; pip install "unlikeness[heif]"') from error
    file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    width, height = file.size
    base.check_size(width, height, max_pixels)
    if "sequence" in str(file.mimetype):
        raise Unusable(
            "it is a sequence, and only still pictures can be protected; export its frames as pictures"
        )
    primary = file[file.primary_index]
    pixels: Pixels = np.array(primary)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[:2] != (height, width):
        raise Unusable("it is damaged (its size is not what its header says); copy or export it again")
    channels = pixels.shape[2]
    alpha: Literal["none", "straight", "premultiplied"] = "none" if channels % 2 else "straight"
    if primary.mode.split(";")[0] == "RGBa":
        alpha = "premultiplied"
    model = ColourModel("grey" if channels < 3 else "rgb", alpha)
    info = dict(primary.info)
    container = read_container(data)
    check_coded(container)
    described = metadata_of(container, alpha=model.alpha != "none")
    orientation = base.valid_orientation(
        pillow_heif.set_orientation({"exif": described.exif_block, "xmp": described.xmp})
    )
    kept = ("icc_profile", "icc_profile_type", "nclx_profile", "bit_depth")
    colours = {key: info[key] for key in kept if info.get(key)}
    beside: tuple[bytes, ...] = ()
    if described.colours and "nclx_profile" not in colours:
        numbers = (*struct.unpack_from(">HH", described.colours, 12), _MATRIX, _FULL_RANGE)
        colours["nclx_profile"] = dict(zip(_NUMBERS, numbers, strict=True))
        beside = (struct.pack(">I8sHHHB", 19, b"colrnclx", *numbers[:3], numbers[3] << 7),)
    writer = _Heic(
        mode=primary.mode,
        colours=colours,
        chroma=str(info.get("chroma")) if str(info.get("chroma")) in _CHROMA else "420",
        described=described,
        beside=beside,
    )
    note = base.joined(
        "alpha coded with the picture, not exact" if model.alpha != "none" else None,
        cut_note(described.crop, coded_size(container)),
        *described.notes,
    )
    stored = np.ascontiguousarray(base.to_stored(pixels, orientation))
    return base.Raster(stored, model, writer, lossless=False, orientation=orientation, note=note)
