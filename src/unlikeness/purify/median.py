"""The median filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlikeness.errors import UsageError
from unlikeness.purify.base import PurifySettings
from unlikeness.purify.files import ThroughPillow
from unlikeness.settings import setting

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Median", "MedianSettings"]


@dataclass(frozen=True, kw_only=True)
class MedianSettings(PurifySettings):
    """How wide. UsageError for an even size."""

    size: int = setting(3, "Side of the window, odd.", unit="px", source="ours: the smallest", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 2 == 0:
            raise UsageError(f"size must be odd, so that the window has a centre, not {self.size}")


class Median(ThroughPillow[MedianSettings]):
    """Puts the median of its neighbourhood in place of each colour value: specks go, edges stay."""

    settings_type = MedianSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL.ImageFilter import MedianFilter

        return picture.filter(MedianFilter(self.settings.size))
