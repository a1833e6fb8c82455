"""JPEG compression, as every platform does it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from unlikeness.purify.base import ThroughPillow
from unlikeness.purify.settings import JpegSettings

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Jpeg", "JpegSettings"]


class Jpeg(ThroughPillow[JpegSettings]):
    """Writes the picture as a JPEG, in memory, and reads it again: halved chroma, as Pillow writes it."""

    settings_type = JpegSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL import Image

        file = io.BytesIO()
        picture.save(file, "JPEG", quality=self.settings.quality)
        return Image.open(file).convert("RGB")
