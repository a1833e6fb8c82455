"""HEIC, by pillow-heif (the extra `heif`), loaded when the first such file is met.

libheif turns a picture upright itself (irot and imir), and writes the turn that the EXIF orientation asks
for, so EXIF keeps its bytes but those of a thumbnail. More than 8 bits are kept as the 10 bits that libheif
writes. The quality of the source is not in the file: `QUALITY` is used. Said in the note: further pictures
(thumbnails, depth, gain maps) are left out, since they would show the picture unprotected; alpha is coded, so
not exact.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats.base import Raster, Unusable, check_size, joined
from unlikeness.pictures.formats.previews import NOTE, exif_without
from unlikeness.pictures.orientation import to_stored, valid

__all__ = ["QUALITY", "read"]

QUALITY = 90
_CHROMA = ("420", "422", "444")


@dataclass(frozen=True, slots=True)
class _Heic:
    mode: str
    metadata: dict[str, Any]
    chroma: str

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        import pillow_heif

        height, width = pixels.shape[:2]
        info = {key: value for key, value in self.metadata.items() if key not in ("exif", "xmp")}
        file = pillow_heif.from_bytes(self.mode, (width, height), np.ascontiguousarray(pixels).tobytes())
        file[0].info.update(info)
        file.save(
            target,
            quality=QUALITY,
            chroma=self.chroma,
            exif=self.metadata.get("exif"),
            xmp=self.metadata.get("xmp"),
        )


def read(data: bytes, max_pixels: int) -> Raster:
    """Decode a HEIC file's bytes. Raises Unusable, or what pillow-heif raises at damaged data."""
    try:
        import pillow_heif
    except ImportError as error:
        raise Unusable("HEIC needs an extra that is not installed; pip install 'unlikeness[heif]'") from error
    file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    width, height = file.size
    check_size(width, height, max_pixels)
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
    orientation = valid(pillow_heif.set_orientation(dict(info)))  # as the encoder will read it
    kept = ("exif", "xmp", "icc_profile", "icc_profile_type", "nclx_profile")
    metadata = {key: info[key] for key in kept if info.get(key)}
    exif = metadata.get("exif", b"")
    if exif:
        metadata["exif"] = exif_without(exif)
    writer = _Heic(
        mode=primary.mode,
        metadata=metadata,
        chroma=str(info.get("chroma")) if str(info.get("chroma")) in _CHROMA else "420",
    )
    more = len(file) > 1 or info.get("thumbnails") or info.get("depth_images") or info.get("aux")
    note = joined(
        "further pictures in the file (thumbnail, depth or gain map) left out" if more else None,
        NOTE if metadata.get("exif", b"") != exif else None,
        "alpha coded with the picture, not exact" if model.alpha != "none" else None,
    )
    stored = np.ascontiguousarray(to_stored(pixels, orientation))
    return Raster(stored, model, writer, lossless=False, orientation=orientation, note=note)
