"""Gaussian noise, which covers a perturbation rather than removing it."""

from __future__ import annotations

import numpy as np

from unlikeness.purify.base import Floats, OfPixels
from unlikeness.purify.settings import NoiseSettings
from unlikeness.seeds import derive

__all__ = ["Noise", "NoiseSettings"]


class Noise(OfPixels[NoiseSettings]):
    """Adds Gaussian noise, drawn on the CPU from the picture's seed."""

    settings_type = NoiseSettings

    def wash(self, picture: Floats, seed: int) -> Floats:
        """See `OfPixels.wash`."""
        drawn = np.random.default_rng(derive(seed)).standard_normal(picture.shape, dtype=np.float32)
        return picture + drawn * np.float32(self.settings.sigma / 255)
