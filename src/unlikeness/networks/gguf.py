"""GGUF files: names and shapes from the header, in bounded time; each tensor opened in full.

The layout is that of https://github.com/ggml-org/ggml, `docs/gguf.md`. The values of quantized blocks are
computed by the package `gguf`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UsageError
from unlikeness.foreign import UnreadableError, check_file, reason

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["GGUF", "Header", "read_gguf", "read_gguf_header"]

GGUF = ".gguf"

_LARGEST = 1 << 25
"""Bytes of a header. FLUX.1's has 50,000."""

_MOST = 20_000
"""Tensors, and entries of metadata."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_SHAPE = "comfy.gguf.orig_shape."
"""Metadata: the shape of a tensor that is stored in another one."""


@dataclass(frozen=True)
class _Stored:
    """kind: ggml's number of the quantization; rows: the shape as stored; at: its first byte in the file."""

    shape: tuple[int, ...]
    rows: tuple[int, ...]
    kind: int
    at: int


@dataclass(frozen=True)
class Header:
    """tensors: by name, in the order of the file."""

    tensors: Mapping[str, _Stored]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """As torch has them."""
        return {name: one.shape for name, one in self.tensors.items()}


class _Reader:
    """The numbers and texts of a header, one after another."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise UnreadableError("it is cut short, or its header is too large")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise UnreadableError("it holds a name that is no text") from error

    def value(self) -> Any:
        """A number, or a list of numbers; None for texts, which are not needed."""
        kind = self.number("I")
        if kind == _TEXT:
            return self.take(self.number("Q")) and None
        if kind != _LIST:
            return self.number(self._code(kind))
        kind, count = self.number("I"), self.number("Q")
        if kind == _TEXT:
            for _ in range(min(count, len(self.data))):  # each takes eight bytes at least
                self.take(self.number("Q"))
            return None
        code = self._code(kind)
        data = self.take(count * struct.calcsize(f"<{code}"))
        return struct.unpack(f"<{count}{code}", data) if count <= 8 else None

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise UnreadableError("its metadata are of an unknown kind")
        return _SCALARS[kind]


def read_gguf_header(path: Path) -> Header:
    """What a GGUF file holds, without torch and without a tensor. UnreadableError for anything else."""
    check_file(path)
    try:
        with path.open("rb") as file:
            reader = _Reader(file.read(_LARGEST))
    except OSError as error:
        raise UnreadableError(reason(error)) from error
    if reader.data[:4] != b"GGUF":
        raise UnreadableError("it is no GGUF file")
    reader.take(4)
    version, tensors, entries = reader.number("I"), reader.number("Q"), reader.number("Q")
    if version not in (2, 3) or tensors > _MOST or entries > _MOST:
        raise UnreadableError(f"it is of another version ({version}) than 2 and 3, or very large")
    metadata = {reader.text(): reader.value() for _ in range(entries)}
    rows = []
    for _ in range(tensors):
        name, sides = reader.text(), reader.number("I")
        if sides > 8:
            raise UnreadableError("it has a tensor of more than 8 dimensions")
        shape = tuple(reversed([reader.number("Q") for _ in range(sides)]))
        rows.append((name, shape, reader.number("I"), reader.number("Q")))
    step = metadata.get("general.alignment", 32)
    if not isinstance(step, int) or not 0 < step <= 1 << 20:
        raise UnreadableError("its general.alignment is no whole number up to a million")
    start = -(-reader.at // step) * step
    found: dict[str, _Stored] = {}
    for name, shape, kind, offset in rows:
        own = metadata.get(_SHAPE + name)
        whole = tuple(map(int, own)) if isinstance(own, tuple) else shape
        if prod(whole) != prod(shape) or any(n < 0 for n in whole):
            raise UnreadableError(f"{name[:60]} has two shapes that do not fit")
        found[name] = _Stored(whole, shape, kind, start + offset)
    return Header(found)


def read_gguf(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a GGUF file, opened in full, in `dtype`.

    UnreadableError if the file is damaged, or has a quantization that the package `gguf` does not know;
    UsageError if the package is not installed.
    """
    import numpy as np
    import torch

    header = read_gguf_header(path)
    try:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise UsageError(
            f"{path} is a GGUF file, which needs the package gguf; install it with `pip install gguf`"
        ) from error
    found: dict[str, Tensor] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for name, one in header.tensors.items():
            try:
                kind = GGMLQuantizationType(one.kind)
                block, size = GGML_QUANT_SIZES[kind]
            except (ValueError, KeyError) as error:
                raise UnreadableError(f"{name[:60]} is quantized in an unknown way ({one.kind})") from error
            count, last = prod(one.rows), one.rows[-1] if one.rows else 1
            end = one.at + count // block * size
            if last % block or end > len(data):
                raise UnreadableError(f"{name[:60]} is cut short, or of another size")
            raw = np.frombuffer(data[one.at : end], np.uint8)
            try:
                values = dequantize(raw.reshape(*one.rows[:-1], -1), kind) if count else raw
            except (NotImplementedError, ValueError) as error:
                raise UnreadableError(f"{name[:60]} is {kind.name}, which is not known") from error
            found[name] = torch.from_numpy(np.array(values, np.float32)).reshape(one.shape).to(dtype)
    return found
