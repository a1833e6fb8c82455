"""Resizing: down and up again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlikeness.purify.base import PurifySettings
from unlikeness.purify.files import ThroughPillow
from unlikeness.settings import setting

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Resize", "ResizeSettings"]


@dataclass(frozen=True, kw_only=True)
class ResizeSettings(PurifySettings):
    """How far down."""

    factor: float = setting(
        0.5,
        "Size in between.",
        unit="share of the side",
        source="ours: what a thumbnail of a post is",
        at_least=0.01,
        at_most=1.0,
    )


class Resize(ThroughPillow[ResizeSettings]):
    """Resizes the picture by a factor and back up (Lanczos): what is finer than that is gone."""

    settings_type = ResizeSettings

    def edit(self, picture: Image) -> Image:
        """See `ThroughPillow.edit`."""
        from PIL.Image import Resampling

        width, height = (max(round(side * self.settings.factor), 1) for side in picture.size)
        return picture.resize((width, height), Resampling.LANCZOS).resize(picture.size, Resampling.LANCZOS)
