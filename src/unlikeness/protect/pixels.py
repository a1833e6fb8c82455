"""A picture in memory, protected as `protect` protects a file: the same tiles, budget, PSNR and mask.

For programs that have pixels and no file: a node of an image editor, a service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import NotFiniteError, UsageError
from unlikeness.protect.files.masks import Mask
from unlikeness.protect.settings import ResolutionMode
from unlikeness.protect.tiling import batches
from unlikeness.protect.tiling.tiles import PictureTiles, Tile

if TYPE_CHECKING:
    from unlikeness.protect.base import Perturber

__all__ = ["protect_pixels"]

Floats = NDArray[np.float32]


class _Pixels:
    """Source and target of the tiles, and a work of `batches.run`."""

    grey = False

    def __init__(self, rgb: Floats) -> None:
        self.rgb, self.protected = rgb, rgb.copy()
        self.tiled: PictureTiles[_Pixels, _Pixels]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.rgb.shape[:2]
        return width, height

    @property
    def pixels(self) -> int:
        width, height = self.size
        return width * height

    def window(self, y0: int, y1: int, x0: int, x1: int) -> Floats:
        return self.rgb[y0:y1, x0:x1]

    def write(self, y0: int, x0: int, rgb: Floats) -> None:
        height, width = rgb.shape[:2]
        self.protected[y0 : y0 + height, x0 : x0 + width] = rgb

    def tiles(self) -> Iterator[Tile]:
        return self.tiled.tiles()

    def accept(self, tile: Tile, delta: Floats) -> None:
        if not np.isfinite(delta).all():
            raise NotFiniteError(
                "the protection answers with values that are not numbers; give other weights"
            )
        self.tiled.accept(tile, delta)


def protect_pixels(
    perturber: Perturber, rgb: Floats, *, at: ResolutionMode | None = None, psnr: float | None = None,
    mask: Floats | None = None, seed: int = 0,
) -> Floats:  # fmt: skip
    """`rgb` with the perturbation: float32 [H, W, 3] in [0, 1], no value farther off than the budget.

    Args:
        perturber: the protection.
        rgb: [H, W, 3] in [0, 1], not rounded to any depth.
        at: the resolution at which the perturbation is computed. Default: `fit`.
        psnr: dB that the change stays above; see `PictureTiles`.
        mask: share of the budget at each pixel, [H, W] in [0, 1].
        seed: for methods that draw.

    Raises:
        UsageError: another shape, values outside [0, 1] or that are not numbers.
        NotFiniteError: the protection answers with values that are not numbers.
    """
    rgb = np.asarray(rgb, np.float32)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise UsageError(f"a picture [height, width, 3] is needed, not a shape of {[*rgb.shape]}")
    if not (rgb.min() >= 0 and rgb.max() <= 1):  # false for NaN
        raise UsageError("the picture's values must be numbers from 0 to 1")
    place = None
    if mask is not None:
        if mask.shape != rgb.shape[:2] or not (mask.min() >= 0 and mask.max() <= 1):
            raise UsageError(
                f"the mask must have the picture's {rgb.shape[1]} × {rgb.shape[0]} px, and values from 0 to 1"
            )
        place = Mask(np.rint(mask * 255).astype(np.uint8))
    work = _Pixels(rgb)
    work.tiled = PictureTiles(
        work, work, resolution=perturber.resolution, budget=perturber.settings.budget,
        at=at or ResolutionMode(), seed=seed, tile=getattr(perturber, "tile", None), psnr=psnr, mask=place,
    )  # fmt: skip
    size = batches.default_batch_size(perturber.resolution, getattr(perturber, "device", "cpu"))
    for _ in batches.run([work], perturber, batch_size=size):
        pass
    work.tiled.close()
    return work.protected
