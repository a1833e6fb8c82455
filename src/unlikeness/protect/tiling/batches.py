"""Protect the tiles of many pictures in batches of one shape, while pictures are read and written.

A short batch is filled up with copies. The shape is then always the same, and so a picture's result is bit
for bit the same alone, in a folder, and after a resumed run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import UnlikenessError
from unlikeness.protect.arrays import perturbed
from unlikeness.protect.tiling.tiles import Tile

if TYPE_CHECKING:
    import torch

    from unlikeness.protect.base import Perturber

__all__ = ["Room", "Tiled", "default_batch_size", "full", "overlapped", "run"]

HELD_PIXELS = 100_000_000
"""Most pixels of all pictures in memory at a time; a single picture may be larger."""


def full(pixels: Sequence[int]) -> bool:
    """Whether pictures of so many pixels leave no room for another one like the largest of them."""
    return bool(pixels) and sum(pixels) + max(pixels) > HELD_PIXELS


class Tiled(Protocol):
    """A picture to protect: its tiles, or none if it only passes through."""

    @property
    def pixels(self) -> int:
        """Pixels that it holds in memory."""

    def tiles(self) -> Iterator[Tile]: ...

    def accept(self, tile: Tile, delta: NDArray[np.float32]) -> None: ...


W = TypeVar("W", bound=Tiled)
A = TypeVar("A")
B = TypeVar("B")


def default_batch_size(resolution: int, device: torch.device | str) -> int:
    """Enough tiles to keep the device busy: more for small models, few for large ones."""
    small = resolution <= 128
    if str(device) == "cpu":
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
    """Protect all, and yield each when its last tile has been accepted, in the given order.

    on_step: called with 1, 2, ... after each step of each batch.

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
    """What all tiles of a batch share: the shape, and whether they have a mask."""
    return tile.image.shape, tile.strength is not None


def _flush(
    batch: list[tuple[_Open[W], Tile]], perturber: Perturber, batch_size: int,
    on_step: Callable[[int], None] | None,
) -> None:  # fmt: skip
    """Perturb the collected tiles, hand the results back, and empty the list."""
    if not batch:
        return
    tiles = [tile for _, tile in batch]
    filled = [*tiles, *[tiles[-1]] * (batch_size - len(tiles))]
    images = _stacked([tile.image for tile in filled])
    strengths = [tile.strength for tile in filled if tile.strength is not None]
    seeds = [tile.seed for tile in filled]
    try:
        protected = perturbed(
            perturber, images, _stacked(strengths) if strengths else None, seeds, on_step
        )
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, of a GPU
            raise
        raise UnlikenessError(
            f"the device's memory does not hold {batch_size} tiles of {images.shape[-1]} px; "
            f"ask for a smaller batch size"
        ) from error
    deltas = (protected - images).transpose(0, 2, 3, 1)
    for (entry, tile), delta in zip(batch, deltas, strict=False):
        entry.work.accept(tile, delta)
        entry.waiting -= 1
    batch.clear()


def _stacked(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Arrays [T, T, C] as one array [B, C, T, T]."""
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))


def overlapped(function: Callable[[A], B], items: Iterable[A], *, ahead: int = 1) -> Generator[B]:
    """`map(function, items)` in another thread, in order, at most `ahead` results before they are needed.

    An exception of `function` is raised in the place of its result.
    """
    with ThreadPoolExecutor(1) as pool:
        running: deque[Future[B]] = deque()
        try:
            for item in items:
                running.append(pool.submit(function, item))
                # No name may outlive its use: an item or a result can hold a picture of 100 megapixels.
                del item
                if len(running) > ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


class Room:
    """Lets the next picture be read only while there is memory for it.

    full: (pixels of the pictures in memory) -> whether there is no room for another.
    """

    def __init__(self, full: Callable[[Sequence[int]], bool]) -> None:
        self._full = full
        self._held: list[int] = []
        self._open = True
        self._changed = threading.Condition()

    def wait(self) -> bool:
        """True as soon as there is room; False after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._open and self._full(self._held)))
            return self._open

    def enter(self, pixels: int) -> None:
        """Count a picture of so many pixels."""
        with self._changed:
            self._held.append(pixels)

    def leave(self, pixels: int) -> None:
        """Count it no longer."""
        with self._changed:
            self._held.remove(pixels)
            self._changed.notify_all()

    def close(self) -> None:
        """Let all waiting calls return."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
