"""Do pictures have the local statistics of clean ones? NIQE (Mittal et al. 2013), fitted to clean pictures.

BRISQUE and NIQE look at the same 36 statistics, at two scales: how luminance, divided by its local deviation,
is distributed, and its products with neighbours in four directions. Noise, blur and blocks change them.
BRISQUE learned from people's scores what that is worth. NIQE fits a Gaussian to the statistics of clean
pictures, and its score is the distance of a picture from it. The published model is of camera photographs.
Here clean pictures of the same kind take their place, so that the score works for drawings too. Its unit is
ours: 1 is as far as another clean picture. The distance takes the covariance of the clean pictures alone.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unlikeness.errors import UsageError

__all__ = ["LEAST_CLEAN", "LEAST_SIDE", "Naturalness", "patch_statistics"]

LEAST_SIDE = 48
"""Smallest short side [px] of a picture that has a score."""

LEAST_CLEAN = 8
"""Fewest clean pictures: half of them are the model, the others say what a clean picture scores."""

_MOST_SIDE = 1024
_SHRINK = 0.1
"""Share of the identity in the correlation of the statistics: few pictures do not fill 36 dimensions."""

_SHAPES = np.arange(0.2, 10, 0.001)

Array = NDArray[np.float64]


class Naturalness:
    """A Gaussian of the statistics of clean pictures.

    Args:
        clean: what `patch_statistics` gave of each clean picture, [patches, 36].

    UsageError for fewer than `LEAST_CLEAN` pictures, and for pictures that are all alike.
    """

    def __init__(self, clean: list[Array]) -> None:
        if len(clean) < LEAST_CLEAN:
            raise UsageError(
                f"the clean pictures hold {len(clean)} of {LEAST_SIDE} px or more, and NIQE needs "
                f"{LEAST_CLEAN}; give more"
            )
        model = np.concatenate(clean[::2])
        self._mean, self._deviation = model.mean(0), model.std(0) + 1e-6
        scaled = (model - self._mean) / self._deviation
        correlation = (1 - _SHRINK) * scaled.T @ scaled / len(model) + _SHRINK * np.eye(model.shape[1])
        self._inverse = np.linalg.inv(correlation)
        self._unit = 1.0
        self._unit = float(np.mean([self.score(one) for one in clean[1::2]]))
        if self._unit < 1e-6:
            raise UsageError("the clean pictures all have the same local statistics; give different ones")

    def score(self, statistics: Array) -> float:
        """How far a picture [patches, 36] is from clean ones: 1 is as far as another clean picture."""
        gap = (statistics.mean(0) - self._mean) / self._deviation
        return float(np.sqrt(gap @ self._inverse @ gap)) / self._unit


def patch_statistics(image: Tensor) -> Array | None:
    """[patches, 36] of a picture [3, H, W] in [0, 1]; None if its short side is below `LEAST_SIDE`.

    Patches have 96 px, or 32 px below a short side of 192 px. Of a large picture the middle is read.
    """
    top, left = (max(side - _MOST_SIDE, 0) // 2 for side in image.shape[-2:])
    image = image[:, top : top + _MOST_SIDE, left : left + _MOST_SIDE].float()
    if min(image.shape[-2:]) < LEAST_SIDE:
        return None
    side = 96 if min(image.shape[-2:]) >= 192 else 32
    grey = 255 * (image * image.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)[None, None]
    rows, columns = (length // side for length in image.shape[-2:])
    grey = grey[..., : rows * side, : columns * side]
    half = F.interpolate(grey, scale_factor=0.5, mode="bicubic", antialias=True)
    return np.concatenate([_statistics(grey, side), _statistics(half, side // 2)], axis=1)


def _statistics(grey: Tensor, side: int) -> Array:
    """[patches, 18] of [1, 1, H, W]: of the normalised luminance, and of its products with neighbours."""
    at = torch.arange(-3.0, 4.0)
    weights = torch.exp(-(at**2) / (2 * (7 / 6) ** 2))
    kernel = torch.outer(weights, weights)[None, None] / weights.sum() ** 2

    def blurred(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (3, 3, 3, 3), mode="replicate"), kernel)

    mean = blurred(grey)
    deviation = (blurred(grey**2) - mean**2).clamp(min=0).sqrt()
    values = (grey - mean) / (deviation + 1)
    ways = [values.roll(shift, (-2, -1)) * values for shift in ((0, 1), (1, 0), (1, 1), (1, -1))]
    found = []
    for one in (values, *ways):
        patches = F.unfold(one, side, stride=side)[0].T.double().numpy()
        shape, left, right = _asymmetric(patches)
        if one is values:
            found += [shape, (left**2 + right**2) / 2]
        else:
            found += [shape, (right - left) * _mean_factor(shape), left**2, right**2]
    return np.stack(found, axis=1)


def _asymmetric(x: Array) -> tuple[Array, Array, Array]:
    """(shape, left and right deviation), [patches] each, of an asymmetric generalized Gaussian."""
    count = np.maximum([(x < 0).sum(1), (x > 0).sum(1)], 1)
    left, right = (np.sqrt((np.where(keep, x, 0) ** 2).sum(1) / n + 1e-12)
                   for keep, n in zip((x < 0, x > 0), count, strict=True))  # fmt: skip
    r = np.abs(x).mean(1) ** 2 / ((x**2).mean(1) + 1e-12)
    g = left / right
    ratio = r * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    return _SHAPES[np.searchsorted(_RATIOS, ratio).clip(0, len(_SHAPES) - 1)], left, right


def _gamma(x: Array) -> Array:
    return np.asarray(torch.lgamma(torch.from_numpy(x)).exp().numpy())


def _mean_factor(shape: Array) -> Array:
    return np.asarray(_gamma(2 / shape) / np.sqrt(_gamma(1 / shape) * _gamma(3 / shape)))


_RATIOS: Array = _gamma(2 / _SHAPES) ** 2 / (_gamma(1 / _SHAPES) * _gamma(3 / _SHAPES))
