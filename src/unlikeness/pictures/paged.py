"""Pixels of very large pictures, in a nameless file that is mapped into memory.

What is not being worked on is let go and comes back from the system's file cache, or from the disk where
memory is short. So a picture of 200 megapixels is protected in less than 2 GiB, although it exists twice.
Only Linux has all that this needs; elsewhere, and where no file of this size can be made, pixels lie in
memory as smaller ones do.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["PAGED", "descriptor", "elsewhere", "empty", "let_go"]

PAGED = 384 << 20
"""Bytes of an array from which on it lies in a file: 134 megapixels of 8-bit colour."""


elsewhere: ContextVar[Callable[[int], mmap.mmap | None] | None] = ContextVar("elsewhere", default=None)
"""Gives memory of so many bytes for pixels that another process is to see; None for too few to matter."""


def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Like numpy.empty, for pixels."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    shared = elsewhere.get()
    if shared is not None and (memory := shared(size)) is not None:
        return np.frombuffer(memory, dtype).reshape(tuple(shape))
    made = descriptor(size) if size >= PAGED else None
    if made is None:
        return np.empty(tuple(shape), dtype)
    try:
        return np.frombuffer(mmap.mmap(made, size), dtype).reshape(tuple(shape))
    finally:
        os.close(made)


def descriptor(size: int) -> int | None:
    """A file of `size` bytes on disk that has no name, or None where there can be none."""
    if sys.platform != "linux":
        return None
    # /tmp is memory on many systems; /var/tmp is not.
    folder = None if "TMPDIR" in os.environ or not Path("/var/tmp").is_dir() else "/var/tmp"
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)
        return os.dup(file.fileno())
    return None


def let_go(pixels: NDArray[Any]) -> None:
    """Take pixels that lie in a file out of this process's memory until they are touched again."""
    if sys.platform != "linux" or pixels.nbytes < PAGED:
        return
    base: object = pixels
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)
