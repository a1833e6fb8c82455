"""The bilateral filter (Tomasi & Manduchi 1998)."""

from __future__ import annotations

import math

import numpy as np

from unlikeness.purify.base import Floats, OfPixels
from unlikeness.purify.settings import BilateralSettings

__all__ = ["Bilateral", "BilateralSettings"]

_BAND_PIXELS = 1 << 20
"""Pixels that are filtered at a time."""


class Bilateral(OfPixels[BilateralSettings]):
    """Averages each pixel with neighbours that are near and of a similar colour: edges stay, and what is
    fainter than an edge vanishes. Both weights are Gaussian; the distance of two colours is Euclidean. The
    seed has no effect."""

    settings_type = BilateralSettings

    def wash(self, picture: Floats, seed: int) -> Floats:
        """See `OfPixels.wash`."""
        reach = math.ceil(2 * self.settings.reach)
        height, width = picture.shape[:2]
        done = np.empty_like(picture)
        step = max(_BAND_PIXELS // width, 1)
        for top in range(0, height, step):
            end = min(top + step, height)
            rows = np.arange(top - reach, end + reach).clip(0, height - 1)
            done[top:end] = self._band(np.pad(picture[rows], ((0, 0), (reach, reach), (0, 0)), "edge"), reach)
        return done

    def _band(self, padded: Floats, reach: int) -> Floats:
        """The filtered rows of a band that has `reach` further pixels on each side."""
        height, width = padded.shape[0] - 2 * reach, padded.shape[1] - 2 * reach
        centre = padded[reach : reach + height, reach : reach + width]
        colour = np.float32(-0.5 / (self.settings.colour / 255) ** 2)
        total: Floats = np.zeros_like(centre)
        weights: Floats = np.zeros((height, width, 1), np.float32)
        for dy in range(2 * reach + 1):
            for dx in range(2 * reach + 1):
                other = padded[dy : dy + height, dx : dx + width]
                apart = ((dy - reach) ** 2 + (dx - reach) ** 2) / (2 * self.settings.reach**2)
                weight = np.exp(colour * np.square(other - centre).sum(2, keepdims=True) - np.float32(apart))
                total += weight * other
                weights += weight
        np.divide(total, weights, out=total)
        return total
