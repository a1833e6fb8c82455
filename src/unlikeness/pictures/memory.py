"""Memory for pixels: of very large pictures in a file, and shared between two processes.

Pixels of very large pictures lie in a nameless file that is mapped into memory. What is not in use is let go,
and comes back from the system's file cache, or from the disk where memory is short. So a picture of 200
megapixels is protected in less than 2 GiB, although it exists twice. Only Linux has all that this needs.
Elsewhere, and where no file of this size can be made, pixels lie in ordinary memory.

An `Area` is memory that one process decodes into and another reads from. It has no name in any folder (on
Windows, one that cannot be guessed) and goes when the last process lets go of it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["LARGE", "PAGED", "Area", "descriptor", "empty", "kept_in", "let_go"]

PAGED = 384 << 20
"""Bytes from which on an array lies in a file: 134 megapixels of 8-bit colour."""
LARGE = 4 << 20
"""Arrays of fewer bytes are not worth an area."""

_shared: ContextVar[Callable[[int], mmap.mmap | None] | None] = ContextVar("shared", default=None)
"""Gives shared memory of so many bytes for pixels; None for too few to matter."""


def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Like numpy.empty, for pixels."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    shared = _shared.get()
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
    """A nameless file of `size` bytes on disk, or None where there can be none."""
    if sys.platform != "linux":
        return None
    # /tmp is memory on many systems; /var/tmp is not.
    folder = None if "TMPDIR" in os.environ or not Path("/var/tmp").is_dir() else "/var/tmp"
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)
        return os.dup(file.fileno())
    return None


def let_go(pixels: NDArray[Any]) -> None:
    """Take pixels that lie in a file out of this process's memory until they are used again."""
    if sys.platform != "linux" or pixels.nbytes < PAGED:
        return
    base: object = pixels
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


class Area:
    """`size` bytes of shared memory, new or received.

    handle: gives the other process access: a file descriptor, or a name on Windows.
    """

    def __init__(self, size: int, handle: int | str | None = None) -> None:
        self.size = size
        self.made = handle is None
        self.handle: int | str
        if sys.platform == "win32":
            self.handle = f"unlikeness-{secrets.token_hex(16)}" if handle is None else str(handle)
            self.memory = mmap.mmap(-1, size, tagname=str(self.handle))
            return
        self.handle = _new(size) if handle is None else int(handle)
        if not self.made and os.fstat(self.handle).st_size != size:
            raise ValueError("an area is not of the size that was announced")
        access = mmap.ACCESS_WRITE if self.made else mmap.ACCESS_READ
        self.memory = mmap.mmap(self.handle, size, access=access)

    def array(self, dtype: DTypeLike, shape: Sequence[int]) -> NDArray[Any]:
        """The area as an array, which keeps it alive; read-only if it was received."""
        found = np.frombuffer(self.memory, dtype).reshape(tuple(shape))
        found.flags.writeable = self.made
        return found

    def close(self) -> None:
        """Let go of the handle; arrays stay."""
        if isinstance(self.handle, int):
            os.close(self.handle)
            self.handle = ""


def _new(size: int) -> int:
    """A descriptor of `size` nameless bytes: on a disk if they are many."""
    if size >= PAGED and (made := descriptor(size)) is not None:
        return made
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):  # where a sandbox forbids it
            return _sealed(size)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return os.dup(file.fileno())


if sys.platform == "linux":

    def _sealed(size: int) -> int:
        """A descriptor of memory whose size is fixed for good, so that no process can cut it off."""
        import fcntl

        memory = os.memfd_create("unlikeness", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, size)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return memory


@contextlib.contextmanager
def kept_in(areas: list[Area]) -> Iterator[None]:
    """Make `empty` put pixels into areas until the block ends, and add each area to `areas`."""

    def made(size: int) -> mmap.mmap | None:
        if size < LARGE:
            return None
        areas.append(Area(size))
        return areas[-1].memory

    token = _shared.set(made)
    try:
        yield
    finally:
        _shared.reset(token)
