"""Where tiles lie along an axis, how they are cross-faded, and how they are put together.

A trainer cuts the centre square out of a photograph. So one tile lies exactly in the centre and keeps its
perturbation whole; the others follow outwards. Neighbours overlap by at least `ramp` pixels and are
cross-faded at the outer edge of the inner one. With rho_i the rise from tile i to tile i + 1, the windows are
w_i = rho_(i-1) - rho_i. By construction they are not negative and their sum is 1 everywhere, so a blend of
perturbations within a budget is within it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "Blend", "Grid"]

Floats = NDArray[np.float32]


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
        """One past the last pixel of tile `index` on the axis."""
        return min(self.starts[index] + self.tile, self.length)

    def window(self, index: int) -> Floats:
        """The weight of tile `index` at each of its pixels on the axis: [stop - start] in [0, 1]."""
        x = np.arange(self.starts[index], self.stop(index), dtype=np.float64) + 0.5
        return (self._rise(index - 1, x) - self._rise(index, x)).astype(np.float32)

    def _rise(self, index: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """rho_index at x: 0 before the fade from tile `index` to the next, 1 after it."""
        if index < 0:
            return np.ones_like(x)
        if index >= len(self) - 1:
            return np.zeros_like(x)
        inner = index < self.centre  # is the next tile the inner one?
        begin = self.starts[index + 1] if inner else self.starts[index] + self.tile - self.ramp
        along = np.clip((x - begin) / max(self.ramp, 1e-6), 0, 1)
        rise: NDArray[np.float64] = 0.5 - 0.5 * np.cos(np.pi * along)
        return rise


@dataclass(frozen=True)
class Grid:
    """One pass over a picture: the `size` (width, height) at which it is protected, and its tiles."""

    stage: str
    size: tuple[int, int]
    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


class Blend:
    """Adds weighted tiles in a band one tile high, and passes on the rows that no later tile touches."""

    def __init__(self, grid: Grid, sink: Callable[[int, Floats], None]) -> None:
        self._grid = grid
        self._sink = sink
        self._top = 0
        self._band: Floats = np.zeros((0, grid.size[0], 3), np.float32)

    def add(self, row: int, column: int, delta: Floats) -> bool:
        """Add a tile's perturbation, tile by tile and row by row; True after the last tile."""
        rows, columns = self._grid.rows, self._grid.columns
        y0, y1 = rows.starts[row], rows.stop(row)
        x0, x1 = columns.starts[column], columns.stop(column)
        missing = y1 - self._top - len(self._band)
        if missing > 0:
            self._band = np.pad(self._band, ((0, missing), (0, 0), (0, 0)))
        window = rows.window(row)[:, None, None] * columns.window(column)[None, :, None]
        self._band[y0 - self._top : y1 - self._top, x0:x1] += window * delta[: y1 - y0, : x1 - x0]
        if column < len(columns) - 1:
            return False
        last = row == len(rows) - 1
        done = (self._grid.size[1] if last else rows.starts[row + 1]) - self._top
        self._sink(self._top, self._band[:done])
        self._band = self._band[done:].copy()
        self._top += done
        return last
