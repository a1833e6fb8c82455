"""What the reading of one file may cost: entries visited, bytes copied or unpacked, seconds of computing.

All readers spend from one budget, so that no file can make them work for longer by repeating, nesting or
overlapping what it holds. Pixels do not count: their number is checked by `check_size`.

    with Budget(len(data)).active():
        spend(entries=1, copied=length)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from unlikeness.pictures.unusable import Unusable

__all__ = ["Budget", "grant_pixels", "spend"]

MOST_ENTRIES = 100_000
"""Segments, tags, boxes, resources and chunks of metadata: a large photograph has some thousands."""
MOST_BYTES = 64 << 20
"""Bytes that may be copied or unpacked beyond the file's own size."""
MOST_SECONDS = 10.0
"""Seconds of computing for all but the pixels."""
_SECONDS_PER_PIXEL = 1e-7
"""More than any pixel takes to be decoded."""


class Budget:
    """The budget of one file of `size` bytes.

    grant: told the number of pixels when it is known, which is before they are decoded.
    """

    def __init__(self, size: int, grant: Callable[[int], None] | None = None) -> None:
        self.entries = MOST_ENTRIES
        self.bytes = MOST_BYTES + size
        self.grant = grant
        self._ends = time.thread_time() + MOST_SECONDS

    def pixels(self, count: int) -> None:
        """Allow for the decoding of so many pixels."""
        self._ends += count * _SECONDS_PER_PIXEL
        if self.grant is not None:
            self.grant(count)

    def spend(self, entries: int = 0, copied: int = 0) -> None:
        """Take entries and bytes off. Raises Unusable when there is not enough left, or no time."""
        self.entries -= entries
        self.bytes -= copied
        if self.entries < 0 or self.bytes < 0 or time.thread_time() > self._ends:
            raise Unusable("it holds more metadata than any camera writes; export it again without metadata")

    @contextmanager
    def active(self) -> Iterator[None]:
        """The budget that `spend` takes from in this thread, until the block ends."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)


_active: ContextVar[Budget | None] = ContextVar("budget", default=None)


def spend(*, entries: int = 0, copied: int = 0) -> None:
    """Take entries and bytes off the active budget; without one, as for files of our own, nothing happens.

    Raises Unusable when there is not enough left.
    """
    if (budget := _active.get()) is not None:
        budget.spend(entries, copied)


def grant_pixels(count: int) -> None:
    """Tell the owner of the active budget that `count` pixels are about to be decoded."""
    if (budget := _active.get()) is not None:
        budget.pixels(count)
