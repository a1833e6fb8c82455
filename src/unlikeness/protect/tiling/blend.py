"""Overlapping tiles put together, in the memory of one row of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from unlikeness.protect.tiling.tiles import Grid, Tile

__all__ = ["Blend"]

Floats = NDArray[np.float32]


class Blend:
    """Adds weighted tiles into a band as high as one, and hands on the rows that no later tile touches."""

    def __init__(self, grid: Grid, sink: Callable[[int, Floats], None]) -> None:
        self._grid = grid
        self._sink = sink
        self._top = 0
        self._band: Floats = np.zeros((0, grid.size[0], 3), np.float32)

    def add(self, tile: Tile, delta: Floats) -> bool:
        """True after the last tile."""
        rows, columns = self._grid.rows, self._grid.columns
        y0, y1 = rows.starts[tile.row], rows.stop(tile.row)
        x0, x1 = columns.starts[tile.column], columns.stop(tile.column)
        missing = y1 - self._top - len(self._band)
        if missing > 0:
            self._band = np.pad(self._band, ((0, missing), (0, 0), (0, 0)))
        window = rows.window(tile.row)[:, None, None] * columns.window(tile.column)[None, :, None]
        self._band[y0 - self._top : y1 - self._top, x0:x1] += window * delta[: y1 - y0, : x1 - x0]
        if tile.column < len(columns) - 1:
            return False
        last = tile.row == len(rows) - 1
        done = (self._grid.size[1] if last else rows.starts[tile.row + 1]) - self._top
        self._sink(self._top, self._band[:done])
        self._band = self._band[done:].copy()
        self._top += done
        return last
