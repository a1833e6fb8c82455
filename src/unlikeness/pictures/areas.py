"""Memory that two processes share: pixels are decoded into it in one and read from it in the other.

An area is anonymous: it has no name in any folder (on Windows, one that nobody can guess) and goes when the
last process that has it mapped lets it go.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unlikeness.pictures.paged import PAGED, descriptor, elsewhere

__all__ = ["LARGE", "Area", "kept_in"]

LARGE = 4 << 20
"""Arrays of fewer bytes are not worth an area."""


class Area:
    """`size` bytes of shared memory, new or received.

    handle: how the other process gets at it: a file descriptor, or a name on Windows.
    """

    def __init__(self, size: int, handle: int | str | None = None) -> None:
        self.size = size
        self.made = handle is None
        self.handle: int | str
        if sys.platform == "win32":
            self.handle = f"unlikeness-{secrets.token_hex(16)}" if handle is None else str(handle)
            self.memory = mmap.mmap(-1, size, tagname=str(self.handle))
            return
        self.handle = _descriptor(size) if handle is None else int(handle)
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


def _descriptor(size: int) -> int:
    """A descriptor of `size` bytes that have no name; of very large ones on a disk, as in `paged`."""
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
        """A descriptor of memory whose size is fixed for good, so that nobody can cut it off."""
        import fcntl

        memory = os.memfd_create("unlikeness", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, size)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return memory


@contextlib.contextmanager
def kept_in(areas: list[Area]) -> Iterator[None]:
    """Pixels that `paged.empty` is asked for lie in areas until the block ends; each is added to `areas`."""

    def made(size: int) -> mmap.mmap | None:
        if size < LARGE:
            return None
        areas.append(Area(size))
        return areas[-1].memory

    token = elsewhere.set(made)
    try:
        yield
    finally:
        elsewhere.reset(token)
