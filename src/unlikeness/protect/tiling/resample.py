"""Pictures reduced to a trainer's size, and perturbations enlarged again, one band of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Enlarger", "shrink"]

Floats = NDArray[np.float32]

BAND_PIXELS = 1 << 16
"""Pixels of the large picture that are held as floats at a time: they fit into a core's own cache."""


def shrink(
    window: Callable[[int, int, int, int], Floats], size: tuple[int, int], to: tuple[int, int]
) -> Floats:
    """A picture of `size` (width, height), read by `window(y0, y1, x0, x1)`, at the smaller size `to`.

    The antialiased triangle filter that training scripts resize with ("bilinear").

    Returns: [h, w, 3] in [0, 1].
    """
    (width, height), (w, h) = size, to
    if size == to:
        return window(0, height, 0, width)
    total = np.zeros((3, h, w), np.float32)
    weight = np.zeros((h, 1), np.float32)
    ratio = height / h
    across = _Narrower(width, w)
    step = max(1, BAND_PIXELS // width)
    for y0 in range(0, height, step):
        y1 = min(y0 + step, height)
        narrow = across(window(y0, y1, 0, width))
        first, last = max(int(y0 / ratio) - 1, 0), min(int(y1 / ratio) + 2, h)
        share = _triangle(np.arange(first, last), np.arange(y0, y1), ratio)
        total[:, first:last] += share @ narrow
        weight[first:last, 0] += share.sum(1)
    return np.ascontiguousarray(np.clip(total / weight, 0, 1).transpose(1, 2, 0))


class _Narrower:
    """Reduces the width of bands of rows. Matrices of neighbouring columns do it, one after the other."""

    COLUMNS = 32
    """Of the result, in one matrix product."""

    def __init__(self, width: int, to: int) -> None:
        self._parts: list[tuple[slice, slice, Floats]] = []
        self._to = to
        ratio = width / to
        for first in range(0, to, self.COLUMNS):
            last = min(first + self.COLUMNS, to)
            begin = max(math.floor((first - 0.5) * ratio), 0)
            end = min(math.ceil((last + 0.5) * ratio), width)
            share = _triangle(np.arange(first, last), np.arange(begin, end), ratio)
            share /= share.sum(1, keepdims=True)
            self._parts.append((slice(begin, end), slice(first, last), np.ascontiguousarray(share.T)))

    def __call__(self, band: Floats) -> Floats:
        """Rows [r, W, 3] -> [3, r, w]."""
        planes = np.ascontiguousarray(band.transpose(2, 0, 1))
        narrow = np.empty((3, len(band), self._to), np.float32)
        for wide, place, share in self._parts:
            np.matmul(planes[:, :, wide], share, out=narrow[:, :, place])
        return narrow


def _triangle(places: NDArray[np.intp], pixels: NDArray[np.intp], ratio: float) -> Floats:
    """The weight of each pixel of the large picture for each place of the small one, not normalised."""
    distance = np.abs(places[:, None] + 0.5 - (pixels + 0.5)[None] / ratio)
    share: Floats = np.clip(1 - distance, 0, None).astype(np.float32)
    return share


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
        places, weights = self._places[y0:y1], self._weights[y0:y1]
        first, last = int(places.min()), int(places.max()) + 1
        share = np.zeros((y1 - y0, last - first), np.float32)
        for k in range(4):  # at a border, places repeat
            np.add.at(share, (np.arange(y1 - y0), places[:, k] - first), weights[:, k])
        rows = self._wide[first:last]
        result: Floats = (share @ rows.reshape(last - first, -1)).reshape(y1 - y0, *rows.shape[1:])
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
