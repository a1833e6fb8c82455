"""Pictures of any size, cut into square tiles, and the perturbations of the tiles put together again.

**At which resolution?** A trainer resizes a photograph until its short side is the model's resolution (64 px
for the toybox, 512 for Stable Diffusion) and cuts out the centre square. That averages away what a protection
does to single pixels of a 12-megapixel photograph. So by default (`fit`) the perturbation is computed on a
small copy, whose short side is `detail` times the model's resolution; the model sees the copy through the
trainer's resizing. The perturbation is then enlarged smoothly to the full size and clipped to the budget.

Measured with a small model at 32 px on pictures of 256 px, AdvDM at 8/255: how much the diffusion loss rises
as the trainer sees it, and if the trainer's grid is shifted.

    fit, detail 1: 46 % and 18 %;  detail 2: 63 % and 38 %;  detail 4: 64 % and 40 %
    tiles: 0 %;  both: 28 % and 13 %;  noise: 0 % at any resolution

`tiles` computes at the picture's own resolution. It only helps against trainers of full-size crops (7 % in
the same trial, fit 2 %), and takes thousands of passes for a photograph. `both` gives half of the budget to
each.

**Bounds.** `fit` needs one tile for a square, three for most photographs, and at most about 28 however long
the picture is. Memory beside the picture itself: the small copy and a band of rows (`fit`), or one row of
tiles. A short or narrow picture is mirrored at its border until it fills a tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from unlikeness.protect.files.masks import Mask
from unlikeness.protect.settings import ResolutionMode
from unlikeness.protect.tiling.layout import Axis, Blend, Grid
from unlikeness.protect.tiling.resample import BAND_PIXELS, Enlarger, shrink
from unlikeness.seeds import derive

__all__ = ["PictureTiles", "Source", "Target", "Tile", "grids"]

Floats = NDArray[np.float32]

LONGEST = 24
"""Longest side of the small copy, in short sides of a tile. A longer picture's copy is smaller."""


class _Windowed(Protocol):
    def window(self, y0: int, y1: int, x0: int, x1: int) -> Floats: ...


class Source(_Windowed, Protocol):
    """What is cut into tiles: a `Picture`, or pixels in memory."""

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def grey(self) -> bool: ...


class Target(Protocol):
    """What protected pixels are written into: an `Edit`, or pixels in memory."""

    def write(self, y0: int, x0: int, rgb: Floats) -> None: ...


@dataclass(frozen=True)
class Tile:
    """A square cut out of a picture: `image` is [T, T, 3] in [0, 1], with a seed of its own.

    strength: share of the budget at each pixel, [T, T, 1] in [0, 1]; None: the whole budget.
    """

    stage: str
    row: int
    column: int
    image: Floats
    seed: int
    strength: Floats | None = None


def grids(size: tuple[int, int], resolution: int, at: ResolutionMode, tile: int | None = None) -> list[Grid]:
    """The passes for a picture of `size` (width, height): one, or two for "both".

    tile: side of the tiles at the picture's own size [px]; None: `resolution`.
    """
    stages = ("fit", "tiles") if at.mode == "both" else (at.mode,)
    return [_grid(stage, size, resolution, at, tile or resolution) for stage in stages]


def _grid(stage: str, size: tuple[int, int], resolution: int, at: ResolutionMode, tile: int) -> Grid:
    if stage == "fit":
        side = round(at.detail * resolution)
        factor = min(1.0, side / min(size), LONGEST * side / max(size))
        size = (max(round(size[0] * factor), 1), max(round(size[1] * factor), 1))
        tile = max(min(size), math.ceil(max(size) / LONGEST))
    ramp = int(at.overlap * tile)
    return Grid(stage, size, Axis.of(size[1], tile, ramp), Axis.of(size[0], tile, ramp))


S = TypeVar("S", bound=Source)
T = TypeVar("T", bound=Target)


class PictureTiles(Generic[S, T]):
    """The tiles of one picture.

    `tiles()` gives them in order, and `accept` takes the perturbation of each in the same order. After the
    last one, `edit` holds the protected picture.

    Args:
        picture, edit: the source, and the place for its protected pixels.
        resolution, tile: the protection's, [px]; see `grids`.
        budget: n/255; the sum over all passes stays within it at every pixel.
        seed: the tiles' seeds are derived from it.
        psnr: a stronger change is weakened evenly until it reaches this many dB: the whole picture's in a
            "fit" pass, each tile's at the picture's own size. None: only the budget bounds it.
        mask: of the picture's size; it scales the budget pixel by pixel. None: the whole budget.
    """

    def __init__(
        self, picture: S, edit: T, *, resolution: int, budget: float, at: ResolutionMode, seed: int,
        tile: int | None = None, psnr: float | None = None, mask: Mask | None = None,
    ) -> None:  # fmt: skip
        self.picture = picture
        self.edit = edit
        self._mask = mask
        self._budget = budget / 255
        self._seed = seed
        self._rms = math.inf if psnr is None else 10 ** (-psnr / 20)
        self._grids = {grid.stage: grid for grid in grids(picture.size, resolution, at, tile)}
        self._share = 1 / len(self._grids)
        self._small: Floats | None = None
        self._enlarger: Enlarger | None = None
        last = list(self._grids.values())[-1]
        self._blends = {
            stage: Blend(grid, self._write if grid is last and stage == "tiles" else self._keep)
            for stage, grid in self._grids.items()
        }

    def __len__(self) -> int:
        return sum(len(grid) for grid in self._grids.values())

    def tiles(self) -> Iterator[Tile]:
        """All tiles, pass by pass and row by row. Each is cut out when it is needed."""
        for stage, grid in self._grids.items():
            source = self._source(grid)
            mask = None if self._mask is None else self._mask.at(grid.size)
            rows, columns, side = grid.rows, grid.columns, grid.rows.tile
            for i in range(len(rows)):
                for j in range(len(columns)):
                    place = (rows.starts[i], rows.stop(i), columns.starts[j], columns.stop(j))
                    image = _filled(source.window(*place), side)
                    strength = None if mask is None else _filled(mask.window(*place), side)
                    yield Tile(stage, i, j, image, derive(self._seed, stage, i, j), strength)

    def accept(self, tile: Tile, delta: Floats) -> None:
        """The perturbation of a tile: [T, T, 3], within the budget."""
        if self.picture.grey:
            # A grey file has one value a pixel: the sign of the mean change, and the mean of the channels'
            # strengths. A plain mean would lose changes of different signs.
            strength = np.abs(delta).mean(axis=2, keepdims=True)
            delta = np.repeat(np.sign(delta.mean(axis=2, keepdims=True)) * strength, 3, axis=2)
        if tile.stage == "tiles":
            delta = delta * self._weaker(delta)
        finished = self._blends[tile.stage].add(tile.row, tile.column, delta)
        if finished and tile.stage == "fit":
            assert self._small is not None
            self._small *= self._weaker(self._small)
            self._enlarger = Enlarger(self._small, self.picture.size)
            self._small = None
            if len(self._grids) == 1:
                width, height = self.picture.size
                step = max(1, BAND_PIXELS // width)
                for y0 in range(0, height, step):
                    self._write(y0, np.zeros((min(step, height - y0), width, 3), np.float32))

    def close(self) -> None:
        """Break the references to this object, so that its pictures are freed with it at once."""
        self._blends.clear()

    def _weaker(self, delta: Floats) -> float:
        """The factor, at most 1, that makes a perturbation meet the PSNR; enlarged, it is fainter."""
        rms = math.sqrt(float(np.square(delta, dtype=np.float64).mean()))
        return min(1.0, self._rms / rms) if rms else 1.0

    def _source(self, grid: Grid) -> _Windowed:
        if grid.stage == "tiles":
            return self.picture
        width, height = grid.size
        self._small = np.zeros((height, width, 3), np.float32)
        return _Array(shrink(self.picture.window, self.picture.size, grid.size))

    def _keep(self, y0: int, band: Floats) -> None:
        """A finished band of the small perturbation."""
        assert self._small is not None
        self._small[y0 : y0 + len(band)] = band

    def _write(self, y0: int, band: Floats) -> None:
        """A finished band of the full-size perturbation. The enlarged small one is added to it."""
        y1 = y0 + len(band)
        if self._enlarger is not None:
            large = np.clip(self._enlarger.band(y0, y1), -self._budget, self._budget)
            band = large if len(self._grids) == 1 else self._share * (band + large)
        if self._mask is not None:
            # Enlarging spreads the perturbation beyond the mask.
            limit = self._budget * self._mask.window(y0, y1, 0, self.picture.size[0])
            band = np.clip(band, -limit, limit)
        rgb = self.picture.window(y0, y1, 0, self.picture.size[0])
        self.edit.write(y0, 0, np.clip(rgb + band, 0, 1))


@dataclass(frozen=True)
class _Array:
    pixels: Floats

    def window(self, y0: int, y1: int, x0: int, x1: int) -> Floats:
        return self.pixels[y0:y1, x0:x1]


def _filled(image: Floats, side: int) -> Floats:
    """`image` [h, w, C] mirrored at its lower and right border until it is `side` px square."""
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    return np.pad(image, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric")
