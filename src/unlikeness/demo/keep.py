"""Finished parts of a demo on disk, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness.diffusion.latents import Posterior


class Kept:
    """Tensors in `folder`, each under a name and a digest of everything that it depends on."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.text = json.dumps(settings, sort_keys=True)
        folder.mkdir(parents=True, exist_ok=True)

    def tensors(
        self, name: str, depends: Tensor | None, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What `make` gave for these settings and this `depends`, now or in an earlier run."""
        from safetensors.torch import load_file, save_file

        digest = hashlib.sha256(self.text.encode())
        if depends is not None:
            digest.update(depends.contiguous().numpy().tobytes())
        file = self.folder / f"{name}-{digest.hexdigest()[:16]}.safetensors"
        if not file.exists():
            part = file.with_suffix(".part")
            save_file({key: value.cpu().contiguous() for key, value in make().items()}, part)
            part.replace(file)
        return load_file(file)

    def images(self, name: str, depends: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1]."""
        return self.tensors(name, depends, lambda: {"images": make()})["images"].to(torch.float32)

    def posterior(self, name: str, make: Callable[[], Posterior]) -> Posterior:
        """Latents [K, C, h, w] of class pictures."""

        def parts() -> dict[str, Tensor]:
            made = make()
            return {"mean": made.mean, "std": made.std}

        found = self.tensors(name, None, parts)
        return Posterior(found["mean"], found["std"])
