"""Reading ahead and writing behind: one thread each, while the protection computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["overlapped"]

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
