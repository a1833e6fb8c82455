"""What one file may cost: pixels, memory, seconds, and entries and bytes of metadata.

Two bounds apply. A `Budget` counts what the readers of formats do, so that no file can make them work for
longer by repeating, nesting or overlapping what it holds:

    with Budget(len(data)).active():
        spend(entries=1, copied=length)

A `Meter` holds the whole process to its `Limits`. The kernel enforces seconds of computing and bytes of
private memory on Linux, and seconds on every POSIX system. Elsewhere a thread checks ten times a second.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import resource

__all__ = [
    "MAX_PIXELS", "OVER", "TOO_LARGE", "Budget", "Limits", "Meter", "Unusable", "grant_pixels", "most_bytes",
    "spend",
]  # fmt: skip

MAX_PIXELS = 210_000_000
"""Default bound on width × height: the largest cameras and telephones have 200 megapixels."""
BYTES_PER_PIXEL = 16
"""A file with more bytes for each pixel of the bound is refused, unless it is small."""
_SMALL_FILE = 64 << 20

MOST_ENTRIES = 100_000
"""Segments, tags, boxes, resources and chunks of metadata. A large photograph has some thousands."""
MOST_BYTES = 64 << 20
"""Bytes that may be copied or unpacked beyond the file's own size."""
MOST_SECONDS = 10.0
"""Seconds of computing for everything but the pixels."""
_SECONDS_PER_PIXEL = 1e-7
"""More than the decoding of a pixel takes."""

OVER = 3
"""Exit status of a process that ended itself because it used too much."""
TOO_LARGE = "it does not fit in memory that a picture of its size may take; export it again or close programs"
"""The reason given for a file whose decoding ran out of memory."""
_MEMORY_PER_PIXEL = 32
"""The most that any format needs while it decodes: 16 bits, four channels, twice, and the file's own rows."""


class Unusable(Exception):  # noqa: N818 - it describes the file, not a fault of the program
    """This file cannot be used as a picture: reason and remedy, without the file's name."""


def most_bytes(max_pixels: int) -> int:
    """The size of a file, in bytes, above which it is refused without being read."""
    return max(_SMALL_FILE, max_pixels * BYTES_PER_PIXEL)


class Budget:
    """The budget of one file of `size` bytes. Pixels do not count: `check_size` checks their number.

    grant: called with the number of pixels before they are decoded.
    """

    def __init__(self, size: int, grant: Callable[[int], None] | None = None) -> None:
        self.entries = MOST_ENTRIES
        self.bytes = MOST_BYTES + size
        self.grant = grant
        self._ends = time.thread_time() + MOST_SECONDS

    def pixels(self, count: int) -> None:
        """Allow for the decoding of `count` pixels."""
        self._ends += count * _SECONDS_PER_PIXEL
        if self.grant is not None:
            self.grant(count)

    def spend(self, entries: int = 0, copied: int = 0) -> None:
        """Subtract entries and bytes. Raises Unusable when too few are left, or no time."""
        self.entries -= entries
        self.bytes -= copied
        if self.entries < 0 or self.bytes < 0 or time.thread_time() > self._ends:
            raise Unusable("it holds more metadata than any camera writes; export it again without metadata")

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make this the budget that `spend` uses in this thread until the block ends."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)


_active: ContextVar[Budget | None] = ContextVar("budget", default=None)


def spend(*, entries: int = 0, copied: int = 0) -> None:
    """Subtract from the active budget; without one, as for our own files, do nothing. Raises Unusable."""
    if (budget := _active.get()) is not None:
        budget.spend(entries, copied)


def grant_pixels(count: int) -> None:
    """Announce to the active budget that `count` pixels are about to be decoded."""
    if (budget := _active.get()) is not None:
        budget.pixels(count)


@dataclass(frozen=True)
class Limits:
    """The bounds of a process that decodes one file.

    seconds: of computing. waiting: seconds of the wall clock, for a disk that does not answer. spare: bytes
    of memory beside those of the file and its pixels.
    """

    seconds: int = 20
    waiting: int = 200
    spare: int = 256 << 20


class Meter:
    """Holds this process to the limits of one file after the other."""

    def __init__(self) -> None:
        self.limits = Limits()
        self._base = 0
        self._allowed = 0
        self._ends = float("inf")

    def begin(self, limits: Limits) -> None:
        """Start to count for the next file."""
        self.limits = limits
        self._base = _in_use()
        self.allow(0)
        self._ends = time.process_time() + limits.seconds
        if sys.platform != "win32":
            _lower(resource.RLIMIT_CPU, int(time.process_time()) + 1 + limits.seconds)

    def allow(self, size: int, pixels: int = 0) -> None:
        """Allow memory for a file of `size` bytes, held whole and in parts, and for so many pixels."""
        self._allowed = self._base + self.limits.spare + 2 * size + pixels * _MEMORY_PER_PIXEL
        if sys.platform == "linux":
            _lower(resource.RLIMIT_DATA, self._allowed)

    def over(self) -> bool:
        """Whether more was used than allowed, for systems where the kernel does not check."""
        if time.process_time() > self._ends + 1:
            return True
        return sys.platform == "darwin" and _in_use() > self._allowed


if sys.platform != "win32":

    def _lower(kind: int, value: int) -> None:
        """Set a soft limit, at most the hard one."""
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, hard))


def _in_use() -> int:
    """Bytes of private memory (Linux), or the peak of all memory (macOS); 0 where the system does not say."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # where /proc is not mounted
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
            return pages * os.sysconf("SC_PAGE_SIZE")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0
