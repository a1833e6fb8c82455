"""Gaussian blur."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness.purify.base import ThroughPillow
from unlikeness.purify.settings import BlurSettings

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Blur", "BlurSettings"]


class Blur(ThroughPillow[BlurSettings]):
    """Blurs the picture by a Gaussian, as Pillow approximates it (three extended box blurs)."""

    settings_type = BlurSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL.ImageFilter import GaussianBlur

        return picture.filter(GaussianBlur(self.settings.sigma))
