"""What a process that decodes strangers' files may use, enforced by the operating system where it can be.

Seconds of computing and bytes of private memory are held by the kernel on Linux, seconds on every POSIX
system. Elsewhere a thread looks ten times a second.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OVER", "TOO_LARGE", "Limits", "Meter"]

OVER = 3
"""Exit status of a process that ended itself because it used more than it may."""
TOO_LARGE = "it does not fit in memory that a picture of its size may take; export it again or close programs"
"""Said of a file whose decoding ran out of memory."""

_BYTES_PER_PIXEL = 32
"""The most that any format needs while it decodes: 16 bits, four channels, twice, and the file's own rows."""

if sys.platform != "win32":
    import resource


@dataclass(frozen=True)
class Limits:
    """The bounds of one file.

    seconds: of computing. waiting: seconds of the wall clock, for a disk that does not answer. spare: bytes
    of memory beside the file's own and its pixels'.
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
        """Count anew, for the next file."""
        self.limits = limits
        self._base = _in_use()
        self.allow(0)
        self._ends = time.process_time() + limits.seconds
        if sys.platform != "win32":
            soft = int(time.process_time()) + 1 + limits.seconds
            _lower(resource.RLIMIT_CPU, soft)

    def allow(self, size: int, pixels: int = 0) -> None:
        """Let a file of `size` bytes, which may be in memory whole and in parts, and so many pixels be
        decoded.
        """
        self._allowed = self._base + self.limits.spare + 2 * size + pixels * _BYTES_PER_PIXEL
        if sys.platform == "linux":
            _lower(resource.RLIMIT_DATA, self._allowed)

    def over(self) -> bool:
        """Whether more was used than allowed: for systems whose kernel does not tell."""
        if time.process_time() > self._ends + 1:
            return True
        return sys.platform == "darwin" and _in_use() > self._allowed


if sys.platform != "win32":

    def _lower(kind: int, value: int) -> None:
        """Set a soft limit, as far as the hard one lets it rise."""
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, hard))


def _in_use() -> int:
    """Bytes of private memory (Linux), or the most there ever were of any (macOS); 0 where nobody tells."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # where /proc is not mounted
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
            return pages * os.sysconf("SC_PAGE_SIZE")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0
