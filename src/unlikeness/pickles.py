"""The size of what a pickle would build, from its instructions, before any of them runs."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from unlikeness.foreign import UnreadableError

__all__ = ["check_keys"]

_LONGEST = 1 << 24
"""Bytes of the instructions. Those of SDXL's checkpoint have 500,000."""

_LARGEST = 100_000
"""Values in a tuple, with those of the tuples inside it. A tensor's have a dozen."""


def check_keys(path: Path) -> None:
    """UnreadableError if a file of `torch.save` builds a tuple of very many values.

    A tuple of two times the same tuple, and so on, takes a few bytes a level. Its use as a key, and its
    comparison, take twice the time of the level below.
    """
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            if one.filename.rpartition("/")[2] == "data.pkl":
                if one.file_size > _LONGEST:
                    raise UnreadableError(f"its instructions are longer than {_LONGEST} bytes")
                _check(archive.read(one))


def _check(code: bytes) -> None:
    """Follow the stack. For each value on it: how many values it holds, as far as tuples go."""
    stack: list[int | None] = []  # None: where a list of values begins
    kept: dict[int, int] = {}
    for instruction, argument, _ in pickletools.genops(code):
        name = instruction.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            kept[len(kept) if name == "MEMOIZE" else int(str(argument))] = (stack[-1] if stack else 1) or 1
            continue
        if name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(kept.get(int(str(argument)), 1))
            continue
        if name in ("MARK", "DUP"):
            stack.append(stack[-1] if name == "DUP" and stack else None)
            continue
        taken: list[int] = []
        before = instruction.stack_before
        if pickletools.markobject in before:
            while stack and (size := stack.pop()) is not None:
                taken.append(size)
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            taken.append((stack.pop() if stack else 1) or 1)
        size = 1 + sum(taken) if "TUPLE" in name else 1
        if size > _LARGEST:
            raise UnreadableError("it nests tuples too deeply")
        stack += [size] * len(instruction.stack_after)
