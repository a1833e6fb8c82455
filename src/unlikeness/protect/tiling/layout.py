"""Where tiles lie along an axis, and the windows that blend them: pure arithmetic.

A trainer cuts the centre square out of a photograph, so one tile lies exactly in the centre and keeps its
perturbation whole; the others follow outwards. Neighbours overlap by `ramp` pixels at least and are
cross-faded at the outer edge of the inner one. With rho_i the rise from tile i to tile i + 1, the windows are
w_i = rho_(i-1) - rho_i: they are not negative and their sum is 1 everywhere by construction, so a blend of
perturbations within a budget is within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis"]


@dataclass(frozen=True)
class Axis:
    """Tiles of `tile` px along `length` px.

    starts: first pixel of each tile, ascending. A single tile may be longer than the axis.
    centre: the index of the tile in the middle.
    """

    length: int
    tile: int
    ramp: int
    starts: tuple[int, ...]
    centre: int

    @classmethod
    def of(cls, length: int, tile: int, ramp: int) -> Axis:
        """Cover `length` px; `ramp` is at most half a tile."""
        if not 0 <= ramp <= tile // 2:
            raise ValueError(f"ramp {ramp} must be from 0 to half of the tile, {tile}")
        if length <= tile:
            return cls(length, tile, ramp, (0,), 0)
        middle, last, stride = (length - tile) // 2, length - tile, tile - ramp
        left = math.ceil(middle / stride)
        right = math.ceil((last - middle) / stride)
        starts = [max(middle - k * stride, 0) for k in range(left, 0, -1)]
        starts += [min(middle + k * stride, last) for k in range(right + 1)]
        return cls(length, tile, ramp, tuple(starts), left)

    def __len__(self) -> int:
        return len(self.starts)

    def stop(self, index: int) -> int:
        """One past the last pixel of tile `index` that lies on the axis."""
        return min(self.starts[index] + self.tile, self.length)

    def window(self, index: int) -> NDArray[np.float32]:
        """The weight of tile `index` at each of its pixels on the axis: [stop - start] in [0, 1]."""
        x = np.arange(self.starts[index], self.stop(index), dtype=np.float64) + 0.5
        return (self._rise(index - 1, x) - self._rise(index, x)).astype(np.float32)

    def _rise(self, index: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """rho_index at x: from 0 before the fade from tile `index` to the next up to 1 after it."""
        if index < 0:
            return np.ones_like(x)
        if index >= len(self) - 1:
            return np.zeros_like(x)
        inner = index < self.centre  # is the next tile the inner one?
        begin = self.starts[index + 1] if inner else self.starts[index] + self.tile - self.ramp
        along = np.clip((x - begin) / max(self.ramp, 1e-6), 0, 1)
        rise: NDArray[np.float64] = 0.5 - 0.5 * np.cos(np.pi * along)
        return rise
