"""Reading ahead and writing behind: one thread each, while the protection computes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Room", "overlapped"]

A = TypeVar("A")
B = TypeVar("B")


def overlapped(function: Callable[[A], B], items: Iterable[A], *, ahead: int = 1) -> Generator[B]:
    """`map(function, items)`, in order, in another thread, at most `ahead` results before they are asked for.

    An exception of `function` is raised where its result would have come.
    """
    with ThreadPoolExecutor(1) as pool:
        running: deque[Future[B]] = deque()
        try:
            for item in items:
                running.append(pool.submit(function, item))
                # Names must not outlive their use: an item and a result can be a picture of 100 megapixels.
                del item
                if len(running) > ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


class Room:
    """Lets no other picture be read while those in memory leave no room for it.

    full: told the pixels of those in memory; True if there is none.
    """

    def __init__(self, full: Callable[[Sequence[int]], bool]) -> None:
        self._full = full
        self._held: list[int] = []
        self._open = True
        self._changed = threading.Condition()

    def wait(self) -> bool:
        """True when there is room; False when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._open and self._full(self._held)))
            return self._open

    def enter(self, pixels: int) -> None:
        """A picture of so many pixels is in memory."""
        with self._changed:
            self._held.append(pixels)

    def leave(self, pixels: int) -> None:
        """It is no longer."""
        with self._changed:
            self._held.remove(pixels)
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
