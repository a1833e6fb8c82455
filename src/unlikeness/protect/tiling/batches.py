"""Tiles of many pictures through one protection, in batches of one shape.

The last batch, and one that is cut short, is filled up with copies: with the shape always the same, a
picture's result is bit for bit the same alone, in a folder, and after a resumed run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from unlikeness.errors import UnlikenessError
from unlikeness.protect.base import Perturber
from unlikeness.protect.masked import perturb_within
from unlikeness.protect.tiling.tiles import Tile

__all__ = ["Tiled", "default_batch_size", "full", "run"]

HELD_PIXELS = 100_000_000
"""Pictures in memory at a time hold at most this many pixels, but for a larger one, which is alone."""


def full(pixels: Sequence[int]) -> bool:
    """Whether pictures of so many pixels leave no room for another like the largest of them."""
    return bool(pixels) and sum(pixels) + max(pixels) > HELD_PIXELS


class Tiled(Protocol):
    """What is worked on: a picture's tiles; none for a picture that only passes through."""

    @property
    def pixels(self) -> int:
        """What it holds in memory."""

    def tiles(self) -> Iterator[Tile]: ...

    def accept(self, tile: Tile, delta: NDArray[np.float32]) -> None: ...


W = TypeVar("W", bound=Tiled)


def default_batch_size(resolution: int, device: torch.device | str) -> int:
    """Enough to keep the device busy: small models gain from company, large ones fill the machine alone."""
    small = resolution <= 128
    if torch.device(device).type == "cpu":
        return 4 if small else 1
    return 16 if small else 4


@dataclass
class _Open(Generic[W]):
    work: W
    waiting: int = 0
    read: bool = False


def run(
    works: Iterable[W], perturber: Perturber, *, batch_size: int, on_step: Callable[[int], None] | None = None
) -> Generator[W]:
    """Protect all; yields each when its last tile has been accepted, in the order given.

    on_step: told 1, 2, ... after each step of each batch.

    Raises:
        UnlikenessError: the device's memory does not hold a batch.
    """
    opened: deque[_Open[W]] = deque()
    batch: list[tuple[_Open[W], Tile]] = []

    def finished() -> Iterator[W]:
        while opened and opened[0].read and not opened[0].waiting:
            yield opened.popleft().work

    for work in works:
        entry = _Open(work)
        opened.append(entry)
        for tile in work.tiles():
            if batch and _kind(batch[0][1]) != _kind(tile):
                _flush(batch, perturber, batch_size, on_step)
                yield from finished()
            batch.append((entry, tile))
            entry.waiting += 1
            if len(batch) == batch_size:
                _flush(batch, perturber, batch_size, on_step)
                yield from finished()
        entry.read = True
        if full([held.work.pixels for held in opened]):
            _flush(batch, perturber, batch_size, on_step)
        yield from finished()
    _flush(batch, perturber, batch_size, on_step)
    yield from finished()


def _kind(tile: Tile) -> tuple[tuple[int, ...], bool]:
    """What the tiles of a batch have in common: the shape, and whether they have a mask."""
    return tile.image.shape, tile.strength is not None


def _flush(
    batch: list[tuple[_Open[W], Tile]],
    perturber: Perturber,
    batch_size: int,
    on_step: Callable[[int], None] | None,
) -> None:
    """Perturb what has been collected, give the results back, and empty the list."""
    if not batch:
        return
    tiles = [tile for _, tile in batch]
    filled = [*tiles, *[tiles[-1]] * (batch_size - len(tiles))]
    images = _stacked([tile.image for tile in filled])
    strengths = [tile.strength for tile in filled if tile.strength is not None]
    seeds = [tile.seed for tile in filled]
    try:
        if strengths:
            protected = perturb_within(perturber, images, _stacked(strengths), seeds, on_step)
        else:
            protected = perturber.perturb(images, seeds, on_step)
    except torch.OutOfMemoryError as error:
        raise UnlikenessError(
            f"the device's memory does not hold {batch_size} tiles of {images.shape[-1]} px; "
            f"ask for a smaller batch size"
        ) from error
    deltas = (protected - images).permute(0, 2, 3, 1).numpy()
    for (entry, tile), delta in zip(batch, deltas, strict=False):
        entry.work.accept(tile, delta)
        entry.waiting -= 1
    batch.clear()


def _stacked(arrays: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    """Arrays [T, T, C] as one tensor [B, C, T, T]."""
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
