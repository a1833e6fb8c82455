"""The memory of a process and the processes that it has started."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

__all__ = ["memory_of", "peak_memory"]


@contextmanager
def peak_memory(process: psutil.Process, *, every: float = 0.02) -> Iterator[list[float]]:
    """The largest proportional memory [MiB] of a process and its children while the block runs, in [0].

    every: seconds between two looks, which take some milliseconds each.
    """
    highest, ended = [memory_of(process)], threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            highest[0] = max(highest[0], memory_of(process))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def memory_of(process: psutil.Process) -> float:
    """Their memory now [MiB]; shared memory counts once (resident memory where that is unknown)."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:  # it has just ended
        return 0.0
    for one in family:
        try:
            seen = one.memory_full_info()
            total += getattr(seen, "pss", seen.rss)
        except psutil.Error:
            continue
    return total / 2**20
