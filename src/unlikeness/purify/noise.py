"""Gaussian noise, which covers a perturbation rather than removing it."""

from __future__ import annotations

import torch
from torch import Tensor

from unlikeness.purify.base import PictureByPicture
from unlikeness.purify.settings import NoiseSettings

__all__ = ["Noise", "NoiseSettings"]


class Noise(PictureByPicture[NoiseSettings]):
    """Adds Gaussian noise, drawn on the CPU from the picture's seed."""

    settings_type = NoiseSettings

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""
        drawn = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
        return image + drawn.to(image) * (self.settings.sigma / 255)
