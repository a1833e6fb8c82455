"""Messages between this process and the one that decodes, without code in them.

Only known values travel: None, truth values, numbers, text, bytes, lists, tuples, dictionaries, arrays, and
the dataclasses of `unlikeness.pictures`. A message is a description in JSON, a blob of bytes and small
arrays, and areas of shared memory for large arrays. So a process that a malicious file has taken over can
send wrong pixels, but nothing that the receiver would run.

Both ends are connected sockets. On POSIX an area travels as a file descriptor, on Windows by its name.
"""

# ruff: noqa: F821 - functions that name themselves are deleted when they are done; mypy knows the names

from __future__ import annotations

import dataclasses
import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlikeness.pictures.memory import LARGE, Area, let_go

__all__ = ["Link", "Packed", "packed", "unpacked"]

_PACKAGE = "unlikeness.pictures."
_COPIED = 64 << 20
"""Bytes that are copied at a time."""

_HEAD = struct.Struct(">QQB")
"""Bytes of the description, bytes of the blob, number of areas."""
_AREA = struct.Struct(">Q64s")
"""An area's size and, on Windows, its name."""
_MOST_BYTES = 4 << 30
"""Of a description and of a blob. More is no picture's metadata."""
_MOST_AREAS = 8
_TURN = 0.2
"""Seconds of waiting at a time, so that Ctrl-C gets through on every system."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """A message: its description, the bytes to which that refers, and its areas."""

    text: bytes
    parts: list[bytes]
    areas: list[Area]


def packed(value: object, shared: Sequence[Area] = ()) -> Packed:
    """Describe `value`. shared: areas in which arrays may lie already. TypeError for unknown types."""
    parts: list[bytes] = []
    areas: list[Area] = []
    at = 0

    def blob(data: bytes) -> list[int]:
        nonlocal at
        parts.append(data)
        at += len(data)
        return [at - len(data), len(data)]

    def array(found: NDArray[Any]) -> dict[str, Any]:
        if found.dtype.kind not in "ui":
            raise TypeError(f"arrays of {found.dtype} do not travel")
        described = {"dtype": found.dtype.str, "shape": list(found.shape)}
        if found.nbytes < LARGE:
            return {**described, "blob": blob(found.tobytes())}
        area = next((area for area in shared if _is(found, area)), None)
        if area is None:
            area = Area(found.nbytes)
            _copy(found, area.array(found.dtype, found.shape))
        areas.append(area)
        return {**described, "area": len(areas) - 1}

    def describe(item: object) -> Any:
        if item is None or isinstance(item, (bool, int, float, str)):
            return item
        if isinstance(item, (bytes, bytearray)):
            return {"bytes": blob(bytes(item))}
        if isinstance(item, np.ndarray):
            return {"array": array(item)}
        if isinstance(item, (list, tuple)):
            return {"list" if isinstance(item, list) else "tuple": [describe(part) for part in item]}
        if isinstance(item, dict):
            return {"dict": [[describe(key), describe(part)] for key, part in item.items()]}
        kind = type(item)
        if dataclasses.is_dataclass(item) and kind.__module__.startswith(_PACKAGE):
            fields = {f.name: describe(getattr(item, f.name)) for f in dataclasses.fields(item)}
            return {"class": kind.__module__.removeprefix(_PACKAGE), "name": kind.__name__, "fields": fields}
        raise TypeError(f"{kind.__name__} does not travel")

    try:
        return Packed(json.dumps(describe(value)).encode("ascii"), parts, areas)
    finally:
        del describe  # it refers to itself, and would keep the areas until the collector comes


def unpacked(text: bytes, blob: memoryview, areas: Sequence[Area]) -> Any:
    """The value that `packed` described.

    ValueError, TypeError, LookupError, AttributeError or ImportError for anything else.
    """

    def bytes_at(place: Sequence[int]) -> memoryview:
        start, length = place
        if not 0 <= start <= start + length <= len(blob):
            raise ValueError("bytes outside the message")
        return blob[start : start + length]

    def array(described: Any) -> Any:
        dtype = np.dtype(str(described["dtype"]))
        if dtype.kind not in "ui":
            raise ValueError("an array of no numbers")
        if "area" in described:
            return areas[int(described["area"])].array(dtype, described["shape"])
        return np.frombuffer(bytearray(bytes_at(described["blob"])), dtype).reshape(described["shape"])

    def value(described: Any) -> Any:
        if not isinstance(described, dict):
            return described
        if "bytes" in described:
            return bytes(bytes_at(described["bytes"]))
        if "array" in described:
            return array(described["array"])
        if "list" in described:
            return [value(part) for part in described["list"]]
        if "tuple" in described:
            return tuple(value(part) for part in described["tuple"])
        if "dict" in described:
            return {value(key): value(part) for key, part in described["dict"]}
        kind = getattr(import_module(_PACKAGE + str(described["class"])), str(described["name"]))
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise TypeError(f"{described['name']} is no dataclass")
        return kind(**{name: value(part) for name, part in described["fields"].items()})

    try:
        return value(json.loads(text))
    finally:
        del value  # as above


def _copy(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy pixels some rows at a time, letting go of what is done."""
    step = max(1, _COPIED * len(source) // source.nbytes)
    for top in range(0, len(source), step):
        target[top : top + step] = source[top : top + step]
        let_go(target)
        let_go(source)


def _is(array: NDArray[Any], area: Area) -> bool:
    """Whether an array is the whole of an area, in order."""
    place = area.array(np.uint8, [area.size]).ctypes.data
    return array.flags.c_contiguous and array.nbytes == area.size and array.ctypes.data == place


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
