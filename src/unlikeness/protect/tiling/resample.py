"""Pictures reduced to a trainer's size, and perturbations enlarged again, one band of rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

__all__ = ["Enlarger", "shrink"]

Floats = NDArray[np.float32]

BAND_PIXELS = 1 << 18
"""Pixels of the large picture that are held as floats at a time."""


def shrink(
    window: Callable[[int, int, int, int], Floats], size: tuple[int, int], to: tuple[int, int]
) -> Floats:
    """A picture of `size` (width, height), read by `window(y0, y1, x0, x1)`, at the smaller size `to`.

    The antialiased triangle filter that training scripts resize with ("bilinear").

    Returns: [h, w, 3] in [0, 1].
    """
    (width, height), (w, h) = size, to
    total = np.zeros((h, w, 3), np.float32)
    weight = np.zeros((h, 1, 1), np.float32)
    ratio = height / h
    step = max(1, BAND_PIXELS // width)
    for y0 in range(0, height, step):
        y1 = min(y0 + step, height)
        band = torch.from_numpy(window(y0, y1, 0, width)).permute(2, 0, 1)[None]
        narrow = F.interpolate(band, (y1 - y0, w), mode="bilinear", align_corners=False, antialias=True)
        first, last = max(int(y0 / ratio) - 1, 0), min(int(y1 / ratio) + 2, h)
        rows = (np.arange(y0, y1) + 0.5) / ratio
        share = 1 - np.abs(np.arange(first, last)[:, None] + 0.5 - rows[None])
        share = np.clip(share, 0, None).astype(np.float32)
        total[first:last] += np.einsum("jy,cyx->jxc", share, narrow[0].numpy(), optimize=True)
        weight[first:last, 0, 0] += share.sum(1)
    shrunk: Floats = np.clip(total / weight, 0, 1)
    return shrunk


class Enlarger:
    """A perturbation [h, w, 3] enlarged bicubically, in bands of rows.

    Bicubic interpolation overshoots, so the caller clips to the budget.
    """

    def __init__(self, delta: Floats, to: tuple[int, int]) -> None:
        width, self._height = to
        places, weights = _taps(delta.shape[1], width)
        self._wide: Floats = np.zeros((delta.shape[0], width, 3), np.float32)
        for k in range(4):
            self._wide += delta[:, places[:, k]] * weights[:, k, None]
        self._places, self._weights = _taps(delta.shape[0], self._height)

    def band(self, y0: int, y1: int) -> Floats:
        """Rows y0 to y1 (excluded) at the full size: [y1 - y0, width, 3]."""
        rows, weights = self._places[y0:y1], self._weights[y0:y1, :, None, None]
        result: Floats = self._wide[rows[:, 0]] * weights[:, 0]
        for k in range(1, 4):
            result += self._wide[rows[:, k]] * weights[:, k]
        return result


def _taps(n_in: int, n_out: int) -> tuple[NDArray[np.intp], Floats]:
    """For each of n_out points the four neighbours among n_in and their weights, each [n_out, 4].

    Keys' cubic convolution with a = -0.5; borders repeat.
    """
    at = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    left = np.floor(at).astype(np.intp)
    places = left[:, None] + np.arange(-1, 3)
    d = np.abs(at[:, None] - places)
    inner = 1.5 * d**3 - 2.5 * d**2 + 1
    outer = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weights = np.where(d <= 1, inner, np.where(d < 2, outer, 0)).astype(np.float32)
    return np.clip(places, 0, n_in - 1), weights
