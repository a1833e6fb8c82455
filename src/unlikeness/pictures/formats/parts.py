"""Pieces of bytes that lie here and there in memory, read as one file."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

__all__ = ["Parts"]


class Parts(io.RawIOBase):
    """A file of `parts`, none of which is copied as a whole."""

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = [memoryview(part) for part in parts if len(part)]
        self._starts = [0, *accumulate(len(part) for part in self._parts)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, or fewer at the end; all that are left for a negative size."""
        end = self._starts[-1] if size < 0 else min(self._at + size, self._starts[-1])
        found = []
        while self._at < end:
            number = bisect_right(self._starts, self._at) - 1
            part, start = self._parts[number], self._starts[number]
            piece = part[self._at - start : end - start]
            found.append(piece)
            self._at += len(piece)
        return b"".join(found)
