"""Gaussian blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlikeness.purify.base import PurifySettings
from unlikeness.purify.files import ThroughPillow
from unlikeness.settings import setting

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Blur", "BlurSettings"]


@dataclass(frozen=True, kw_only=True)
class BlurSettings(PurifySettings):
    """How strongly."""

    sigma: float = setting(1.0, "Standard deviation.", unit="px", source="ours", at_least=0.0)


class Blur(ThroughPillow[BlurSettings]):
    """Blurs the picture by a Gaussian, as Pillow approximates it (three extended box blurs)."""

    settings_type = BlurSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL.ImageFilter import GaussianBlur

        return picture.filter(GaussianBlur(self.settings.sigma))
