"""JPEG compression, as every platform does it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from unlikeness.errors import PictureError
from unlikeness.purify.base import ThroughPillow
from unlikeness.purify.settings import JpegSettings

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Jpeg", "JpegSettings"]

_LONGEST = 65_500
"""Pixels a side that libjpeg writes."""


class Jpeg(ThroughPillow[JpegSettings]):
    """Writes the picture as a JPEG, in memory, and reads it again: halved chroma, as Pillow writes it."""

    settings_type = JpegSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL import Image

        if max(picture.size) > _LONGEST:
            raise PictureError(f"a JPEG has at most {_LONGEST:,} pixels a side; scale the picture down")
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=self.settings.quality)
        return Image.open(file).convert("RGB")
