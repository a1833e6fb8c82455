"""Finished parts of a demo on disk, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unlikeness.errors import UnlikenessError
from unlikeness.tensors import save_tensors

__all__ = ["Kept", "Part"]


@dataclass(frozen=True)
class Part:
    """What was made, or found, and how long the making took when it was made [s]."""

    tensors: dict[str, Tensor]
    seconds: float


class Kept:
    """Tensors in `folder`, one safetensors file for a name and everything that it depends on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def part(self, name: str, key: Mapping[str, Any], make: Callable[[Path], dict[str, Tensor]]) -> Part:
        """What `make` gave for this `key` (JSON-able), now or in an earlier run.

        `make` gets a file beside the part's own in which it may keep a checkpoint; it is removed afterwards.
        UnlikenessError if a part that is there cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        file = self.folder / f"{name}-{digest}.safetensors"
        if not file.exists():
            checkpoint = file.with_suffix(".checkpoint")
            began = time.perf_counter()
            made = {name: value.cpu().contiguous() for name, value in make(checkpoint).items()}
            save_tensors(made, file, {"seconds": f"{time.perf_counter() - began:.3f}"})
            checkpoint.unlink(missing_ok=True)
        try:
            with safe_open(file, "pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                return Part(tensors, float(opened.metadata()["seconds"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UnlikenessError(f"{file} is damaged ({error}); delete it and start again") from error
