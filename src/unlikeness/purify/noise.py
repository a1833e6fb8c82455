"""Gaussian noise, which drowns a perturbation rather than removing it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unlikeness.purify.base import PictureByPicture, PurifySettings
from unlikeness.settings import setting

__all__ = ["Noise", "NoiseSettings"]


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(PurifySettings):
    """How strongly."""

    sigma: float = setting(
        8.0,
        "Standard deviation.",
        unit="n/255 of the range [0, 1]",
        source="ours: as much as the budget of a perturbation",
        at_least=0.0,
        at_most=255.0,
    )


class Noise(PictureByPicture[NoiseSettings]):
    """Adds Gaussian noise, drawn on the CPU from the picture's seed."""

    settings_type = NoiseSettings

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""
        drawn = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
        return image + drawn.to(image) * (self.settings.sigma / 255)
