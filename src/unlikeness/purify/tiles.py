"""Pictures of any size through a network: overlapping tiles, cross-faded, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["by_tiles"]


def by_tiles(
    image: Tensor, change: Callable[[Tensor, int], Tensor], *, side: int, cell: int, overlap: int
) -> Tensor:
    """image [3, H, W], changed tile by tile.

    Args:
        change: a tile [1, 3, h, w] and its number -> the changed tile, of the same size.
        side: largest side of a tile [px]; it is rounded down to whole cells.
        cell: sides of a tile are multiples of it [px]; the picture's edge is repeated to make it so.
        overlap: smallest overlap of neighbours [px].
    """
    height, width = image.shape[-2:]
    side = max(side // cell, 1) * cell
    tall, wide = (min(side, -(-length // cell) * cell) for length in (height, width))
    spare = (0, max(wide - width, 0), 0, max(tall - height, 0))
    whole = F.pad(image[None], spare, mode="replicate").float()
    rows, columns = (_starts(n, t, overlap) for n, t in zip(whole.shape[-2:], (tall, wide), strict=True))
    weight = _ramp(tall, overlap)[:, None] * _ramp(wide, overlap)
    total, weights = torch.zeros_like(whole), torch.zeros_like(whole[:, :1])
    for number, (y, x) in enumerate((y, x) for y in rows for x in columns):
        place = (..., slice(y, y + tall), slice(x, x + wide))
        changed = change(whole[place], number).to(total)
        total[place] += changed * weight.to(total)
        weights[place] += weight.to(total)
    if len(rows) * len(columns) == 1:
        total = changed  # nothing to blend, so that no bit is rounded
        weights = torch.ones_like(weights)
    return (total / weights)[0, :, :height, :width]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of evenly spaced tiles that cover `length` and overlap by `overlap` at least."""
    count = 1 if length <= tile else 1 + -(-(length - tile) // max(tile - overlap, 1))
    return [round(start) for start in torch.linspace(0, length - tile, count).tolist()]


def _ramp(tile: int, overlap: int) -> Tensor:
    """[tile]: the weight of each row of a tile, which falls towards both ends."""
    near = torch.arange(1, tile + 1)
    return torch.minimum(near, near.flip(0)).clamp(max=max(overlap, 1)).float()
