"""ONNX models written and looked into without the package `onnx`: a graph under construction, and its bytes.

An ONNX file is a protocol buffer. Only the few messages and fields that our graphs have are written here; the
numbers are those of `onnx.proto3` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Graph", "model_bytes", "unexpected"]

Array = npt.NDArray[Any]

OPSET, IR = 17, 8
"""Of 2022; nothing newer is needed."""

_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types

# Fields, by message.
_MODEL = {"ir": 1, "producer": 2, "version": 3, "doc": 6, "graph": 7, "opset": 8, "metadata": 14}
_GRAPH = {"node": 1, "name": 2, "initializer": 5, "input": 11, "output": 12}
_NODE = {"input": 1, "output": 2, "name": 3, "op_type": 4, "attribute": 5, "domain": 7}
_ATTRIBUTE = {"name": 1, "i": 3, "s": 4, "ints": 8, "type": 20}
_ATTRIBUTE_TYPES = {"i": 2, "s": 3, "ints": 7}
_TENSOR = {"dims": 1, "data_type": 2, "name": 8, "raw_data": 9, "external_data": 13, "data_location": 14}
_VALUE = {"name": 1, "type": 2}


class Graph:
    """A graph under construction. Every method adds nodes or tensors and returns the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []

    def node(
        self, kind: str, *inputs: str, name: str | None = None, **attributes: int | str | Sequence[int]
    ) -> str:
        """An operator with one output. Attributes are whole numbers, texts or lists of whole numbers."""
        name = name or f"{kind}.{len(self._nodes)}"
        self._nodes.append(
            b"".join(_bytes(_NODE["input"], one.encode()) for one in inputs)
            + _bytes(_NODE["output"], name.encode())
            + _bytes(_NODE["name"], name.encode())
            + _bytes(_NODE["op_type"], kind.encode())
            + b"".join(_bytes(_NODE["attribute"], _attribute(*one)) for one in attributes.items())
        )
        return name

    def tensor(self, value: Array | Sequence[int] | int | float, name: str | None = None) -> str:
        """A constant. Integers become int64, everything else float32."""
        name = name or f"constant.{len(self._tensors)}"
        array = np.asarray(value)
        whole = array.dtype.kind in "iu"
        array = array.astype("<i8" if whole else "<f4")
        self._tensors.append(
            b"".join(_number(_TENSOR["dims"], length) for length in array.shape)
            + _number(_TENSOR["data_type"], _INT64 if whole else _FLOAT)
            + _bytes(_TENSOR["name"], name.encode())
            + _bytes(_TENSOR["raw_data"], array.tobytes())
        )
        return name

    def length(self, x: str, axis: int) -> str:
        """The length of an axis, [1] of int64."""
        return self.node("Shape", x, start=axis, end=axis + 1)

    def encoded(
        self, inputs: Mapping[str, Sequence[int | str]], outputs: Mapping[str, Sequence[int | str]]
    ) -> bytes:
        """The graph. inputs, outputs: float32, by name, with the length or the name of each axis."""
        return (
            b"".join(_bytes(_GRAPH["node"], node) for node in self._nodes)
            + _bytes(_GRAPH["name"], b"protector")
            + b"".join(_bytes(_GRAPH["initializer"], tensor) for tensor in self._tensors)
            + b"".join(_bytes(_GRAPH["input"], _value(*one)) for one in inputs.items())
            + b"".join(_bytes(_GRAPH["output"], _value(*one)) for one in outputs.items())
        )


def model_bytes(graph: bytes, *, version: str, doc: str, metadata: Mapping[str, str]) -> bytes:
    """A whole ONNX file. The last entry of `metadata` is its end."""
    return (
        _number(_MODEL["ir"], IR)
        + _bytes(_MODEL["producer"], b"unlikeness")
        + _bytes(_MODEL["version"], version.encode())
        + _bytes(_MODEL["doc"], doc.encode())
        + _bytes(_MODEL["graph"], graph)
        + _bytes(_MODEL["opset"], _bytes(1, b"") + _number(2, OPSET))
        + b"".join(
            _bytes(_MODEL["metadata"], _bytes(1, key.encode()) + _bytes(2, text.encode()))
            for key, text in metadata.items()
        )
    )


def unexpected(model: bytes, operators: Set[str]) -> str | None:
    """What a model has beside these operators and the parts that `model_bytes` writes, in words.

    None: nothing. Other parts may be functions, which give an operator another meaning, and weights in other
    files. ValueError for damaged bytes.
    """
    for number, _ in _fields(model):
        if number not in _MODEL.values():
            return f"it has a part that no export has (field {number})"
    for graph in _all(model, _MODEL["graph"]):
        for number, _ in _fields(graph):
            if number not in _GRAPH.values():
                return f"its graph has a part that no export has (field {number})"
        for node in _all(graph, _GRAPH["node"]):
            kind, domain = (
                b"".join(map(bytes, _all(node, _NODE[field]))).decode("utf-8", "replace")
                for field in ("op_type", "domain")
            )
            if domain or kind not in operators:
                called = f"{domain}.{kind}" if domain else kind
                return f"it has operators that no export has ({called})"
        for tensor in _all(graph, _GRAPH["initializer"]):
            for number, value in _fields(tensor):
                elsewhere = number == _TENSOR["data_location"] and value != 0
                if elsewhere or number == _TENSOR["external_data"]:
                    return "it keeps weights in other files, as no export does"
    return None


def _attribute(name: str, value: int | str | Sequence[int]) -> bytes:
    if isinstance(value, int):
        kind, encoded = "i", _number(_ATTRIBUTE["i"], value)
    elif isinstance(value, str):
        kind, encoded = "s", _bytes(_ATTRIBUTE["s"], value.encode())
    else:
        kind, encoded = "ints", b"".join(_number(_ATTRIBUTE["ints"], one) for one in value)
    return _bytes(1, name.encode()) + encoded + _number(_ATTRIBUTE["type"], _ATTRIBUTE_TYPES[kind])


def _value(name: str, axes: Sequence[int | str]) -> bytes:
    dims = [_number(1, axis) if isinstance(axis, int) else _bytes(2, axis.encode()) for axis in axes]
    shape = b"".join(_bytes(1, dim) for dim in dims)
    tensor = _number(1, _FLOAT) + _bytes(2, shape)
    return _bytes(_VALUE["name"], name.encode()) + _bytes(_VALUE["type"], _bytes(1, tensor))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    """A field with a whole number from 0."""
    return _varint(field << 3 | _VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH) + _varint(len(value)) + value


def _all(message: bytes | memoryview, field: int) -> Iterator[memoryview]:
    """The messages or texts in a field of a message."""
    for number, value in _fields(message):
        if number == field:
            if isinstance(value, int):
                raise ValueError(f"field {field} is a number")
            yield value


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: (number, whole number, or the bytes). ValueError for damaged bytes."""
    view, at = memoryview(message), 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(view) or shift > 63:
                raise ValueError("a number is cut short")
            byte = view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(view):
        key = varint()
        kind = key & 7
        if kind == _VARINT:
            yield key >> 3, varint()
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == _LENGTH:
            length = varint()
        if length < 0 or at + length > len(view):
            raise ValueError("a field is cut short, or of an unknown kind")
        yield key >> 3, view[at : at + length]
        at += length
