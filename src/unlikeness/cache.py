"""Finished parts of a long run, kept so that an interrupted run continues with the next part."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unlikeness.errors import UnlikenessError
from unlikeness.tensors import save_tensors

__all__ = ["Cache", "Part"]


@dataclass(frozen=True)
class Part:
    """The tensors of a part, and the seconds that making them took."""

    tensors: dict[str, Tensor]
    seconds: float


class Cache:
    """Tensors in `folder`: one safetensors file for each name and key. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def part(self, name: str, key: Mapping[str, Any], make: Callable[[Path], dict[str, Tensor]]) -> Part:
        """The tensors that `make` returned for this name and key, now or in an earlier run.

        Args:
            key: JSON-able; everything that the tensors depend on.
            make: gets a path at which it may keep the state of a training, as a file or a folder. The path
                is removed when `make` returns.

        UnlikenessError if a part that is there cannot be read.
        """
        if self.folder is None:
            with tempfile.TemporaryDirectory(prefix="unlikeness-") as scratch:
                return _made(make, Path(scratch) / "state")

        from safetensors import SafetensorError, safe_open

        file = self._file(self.folder, name, key)
        if not file.exists():
            state = file.with_suffix(".training")
            part = _made(make, state)
            save_tensors(part.tensors, file, {"seconds": f"{part.seconds:.3f}"})
            if state.is_dir():
                shutil.rmtree(state, ignore_errors=True)
            else:
                state.unlink(missing_ok=True)
        try:
            with safe_open(file, "pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                return Part(tensors, float(opened.metadata()["seconds"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UnlikenessError(f"{file} is damaged ({error}); delete it and start again") from error

    def has(self, name: str, key: Mapping[str, Any]) -> bool:
        """Whether `part` would find these tensors."""
        return self.folder is not None and self._file(self.folder, name, key).exists()

    @staticmethod
    def _file(folder: Path, name: str, key: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        own = re.sub(r"[^\w.-]+", "_", name)
        return folder / f"{own}-{digest}.safetensors"


def _made(make: Callable[[Path], dict[str, Tensor]], state: Path) -> Part:
    began = time.perf_counter()
    tensors = {name: value.cpu().contiguous() for name, value in make(state).items()}
    return Part(tensors, time.perf_counter() - began)
