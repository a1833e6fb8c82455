"""The median filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness.purify.base import ThroughPillow
from unlikeness.purify.settings import MedianSettings

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Median", "MedianSettings"]


class Median(ThroughPillow[MedianSettings]):
    """Puts the median of its neighbourhood in place of each colour value: specks vanish, edges stay."""

    settings_type = MedianSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL.ImageFilter import MedianFilter

        return picture.filter(MedianFilter(self.settings.size))
