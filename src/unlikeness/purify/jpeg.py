"""JPEG: what every platform does to a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlikeness.purify.base import PurifySettings
from unlikeness.purify.files import ThroughPillow
from unlikeness.settings import setting

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Jpeg", "JpegSettings"]


@dataclass(frozen=True, kw_only=True)
class JpegSettings(PurifySettings):
    """How strongly."""

    quality: int = setting(
        75,
        "Quality of the JPEG.",
        unit="1 to 100",
        source="Pillow's and libjpeg's own default",
        at_least=1,
        at_most=100,
    )


class Jpeg(ThroughPillow[JpegSettings]):
    """Writes the picture as a JPEG, in memory, and reads it again: halved chroma, as Pillow writes it."""

    settings_type = JpegSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL import Image

        file = io.BytesIO()
        picture.save(file, "JPEG", quality=self.settings.quality)
        return Image.open(file).convert("RGB")
