"""Messages between this process and the one that decodes: a description, bytes, and areas of shared memory.

Both ends are connected sockets. On POSIX an area travels as a file descriptor, on Windows by its name.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence

from unlikeness.pictures.areas import Area
from unlikeness.pictures.wire import Packed

__all__ = ["Link"]

_HEAD = struct.Struct(">QQB")
"""Bytes of the description, bytes of the blob, number of areas."""
_AREA = struct.Struct(">Q64s")
"""An area's size and, on Windows, its name."""
_MOST_BYTES = 4 << 30
"""Of a description and of a blob. More is no picture's metadata."""
_MOST_AREAS = 8
_TURN = 0.2
"""Seconds of waiting at a time, so that Ctrl-C gets through on every system."""


class Link:
    """One end of a connection. Every method raises EOFError or OSError when the other end is gone."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.settimeout(_TURN)

    def send(self, packed: Packed) -> None:
        """Send a message; its areas are let go of here."""
        blob = b"".join(packed.parts)
        head = _HEAD.pack(len(packed.text), len(blob), len(packed.areas))
        for area in packed.areas:
            head += _AREA.pack(area.size, b"" if isinstance(area.handle, int) else area.handle.encode())
        self._end.settimeout(None)
        sent = 0
        descriptors = [area.handle for area in packed.areas if isinstance(area.handle, int)]
        if sys.platform != "win32" and descriptors:
            sent = socket.send_fds(self._end, [head], descriptors)
        self._end.sendall(head[sent:])
        self._end.sendall(packed.text)
        self._end.sendall(blob)
        self._end.settimeout(_TURN)
        for area in packed.areas:
            area.close()

    def receive(self, waiting: Callable[[], None] | None = None) -> tuple[bytes, memoryview, list[Area]]:
        """The next message. waiting: called every now and then until it is there, and may raise."""
        descriptors: list[int] = []
        try:
            head = self._exactly(_HEAD.size, waiting, descriptors)
            length, more, count = _HEAD.unpack(head)
            if max(length, more) > _MOST_BYTES or count > _MOST_AREAS:
                raise EOFError("a message of another kind")
            areas = [_AREA.unpack(self._exactly(_AREA.size, waiting, descriptors)) for _ in range(count)]
            text = bytes(self._exactly(length, waiting, descriptors))
            blob = memoryview(self._exactly(more, waiting, descriptors))
            handles: Sequence[int | str] = descriptors
            if sys.platform == "win32":
                handles = [name.rstrip(b"\0").decode() for _, name in areas]
            if len(handles) != count:
                raise EOFError("areas are missing")
            return text, blob, [Area(size, h) for (size, _), h in zip(areas, handles, strict=True)]
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        """End the connection."""
        self._end.close()

    def _exactly(self, count: int, waiting: Callable[[], None] | None, descriptors: list[int]) -> bytearray:
        data = bytearray(count)
        view, at = memoryview(data), 0
        while at < count:
            try:
                if sys.platform != "win32" and at == 0 and count == _HEAD.size:
                    part, new, _, _ = socket.recv_fds(self._end, count, _MOST_AREAS)
                    descriptors.extend(new)
                    got = len(part)
                    view[:got] = part
                else:
                    got = self._end.recv_into(view[at:])
            except TimeoutError:
                got = -1
            if waiting is not None:
                waiting()
            if got < 0:
                continue
            if not got:
                raise EOFError("the other end is gone")
            at += got
        return data
