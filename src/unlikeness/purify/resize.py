"""Resizing: down and up again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness.purify.base import ThroughPillow
from unlikeness.purify.settings import ResizeSettings

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Resize", "ResizeSettings"]


class Resize(ThroughPillow[ResizeSettings]):
    """Resizes the picture by a factor and back up (Lanczos): finer details are lost."""

    settings_type = ResizeSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL.Image import Resampling

        width, height = (max(round(side * self.settings.factor), 1) for side in picture.size)
        return picture.resize((width, height), Resampling.LANCZOS).resize(picture.size, Resampling.LANCZOS)
