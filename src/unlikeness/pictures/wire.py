"""A decoded picture as bytes, from one process to another, without code in it.

Only known things travel: None, truth values, numbers, text, bytes, lists, tuples, dictionaries, arrays, and
the dataclasses of `unlikeness.pictures`. They are described in JSON; bytes and small arrays follow as one
blob, and large arrays lie in shared memory. So a process that a malicious file has taken over can send wrong
pixels, but nothing that the receiver would run.
"""

# ruff: noqa: F821 - functions that name themselves are deleted when they are done; mypy knows the names

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlikeness.pictures.areas import LARGE, Area
from unlikeness.pictures.paged import let_go

__all__ = ["Packed", "packed", "unpacked"]

_PACKAGE = "unlikeness.pictures."
_COPIED = 64 << 20
"""Bytes that are copied at a time."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """A value on its way: its description, the bytes that it refers to, and its areas."""

    text: bytes
    parts: list[bytes]
    areas: list[Area]


def packed(value: object, shared: Sequence[Area] = ()) -> Packed:
    """Describe `value`. shared: areas that arrays may lie in already. TypeError for anything unknown."""
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
        told = {"dtype": found.dtype.str, "shape": list(found.shape)}
        if found.nbytes < LARGE:
            return {**told, "blob": blob(found.tobytes())}
        area = next((area for area in shared if _is(found, area)), None)
        if area is None:
            area = Area(found.nbytes)
            _copy(found, area.array(found.dtype, found.shape))
        areas.append(area)
        return {**told, "area": len(areas) - 1}

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
    """The value that `packed` described. ValueError, TypeError, LookupError, AttributeError or ImportError
    for anything else.
    """

    def bytes_at(place: Sequence[int]) -> memoryview:
        start, length = place
        if not 0 <= start <= start + length <= len(blob):
            raise ValueError("bytes outside the message")
        return blob[start : start + length]

    def array(told: Any) -> Any:
        dtype = np.dtype(str(told["dtype"]))
        if dtype.kind not in "ui":
            raise ValueError("an array of no numbers")
        if "area" in told:
            return areas[int(told["area"])].array(dtype, told["shape"])
        return np.frombuffer(bytearray(bytes_at(told["blob"])), dtype).reshape(told["shape"])

    def value(told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        if "bytes" in told:
            return bytes(bytes_at(told["bytes"]))
        if "array" in told:
            return array(told["array"])
        if "list" in told:
            return [value(part) for part in told["list"]]
        if "tuple" in told:
            return tuple(value(part) for part in told["tuple"])
        if "dict" in told:
            return {value(key): value(part) for key, part in told["dict"]}
        kind = getattr(import_module(_PACKAGE + str(told["class"])), str(told["name"]))
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise TypeError(f"{told['name']} is no dataclass")
        return kind(**{name: value(part) for name, part in told["fields"].items()})

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
