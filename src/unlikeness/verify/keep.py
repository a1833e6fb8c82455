"""Finished parts of a verification, on disk or not, and what tells one from another."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from unlikeness.demo.keep import Kept, Part

__all__ = ["Keeper", "keeper"]

Make = Callable[[Path], dict[str, Tensor]]


class Keeper(Protocol):
    """Where parts are kept: `part` makes one, unless one of this name and key is there."""

    def part(self, name: str, key: Mapping[str, Any], make: Make) -> Part:
        """`make` gets a folder of its own for a training's state; it need not exist, and is removed after."""


def keeper(folder: Path | None) -> Keeper:
    """Parts in `folder`, or, without one, nowhere."""
    return _Nowhere() if folder is None else _InFolder(folder)


class _InFolder:
    def __init__(self, folder: Path) -> None:
        self.kept = Kept(folder)

    def part(self, name: str, key: Mapping[str, Any], make: Make) -> Part:
        def made(checkpoint: Path) -> dict[str, Tensor]:
            scratch = checkpoint.with_suffix(".training")
            tensors = make(scratch)
            shutil.rmtree(scratch, ignore_errors=True)
            return tensors

        return self.kept.part(re.sub(r"[^\w.-]+", "_", name), key, made)


class _Nowhere:
    def part(self, name: str, key: Mapping[str, Any], make: Make) -> Part:
        with tempfile.TemporaryDirectory(prefix="unlikeness-") as folder:
            began = time.perf_counter()
            return Part(make(Path(folder)), time.perf_counter() - began)
