"""A diffusers folder read into its components, as a stranger's: nothing in it is run or believed.

1. `known.py`: model_index.json may name known classes only.
2. `configs.py`, `tokens.py`: every setting is in bounds.
3. `building.py`: every weight has the shape that its configuration asks for, before memory is taken.
4. `trial.py`: the parts fit together.

Weights are read from safetensors, single or sharded, in the plain or a variant's name. Where a folder holds
nothing but pickles they are read with `torch.load(weights_only=True)`: tensors only, never code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unlikeness.diffusion.building import build, fill, read_weights, sentence
from unlikeness.diffusion.configs import read_config
from unlikeness.diffusion.families import Family
from unlikeness.diffusion.known import read_index, read_object
from unlikeness.diffusion.quiet import quiet
from unlikeness.diffusion.tokens import load_tokenizer
from unlikeness.diffusion.trial import check_scheduler
from unlikeness.errors import UnlikenessError
from unlikeness.foreign import UnreadableError, check_file

__all__ = ["Components", "load_folder", "load_scheduler"]

_COPIED = ("README.md", "immunization.json")
"""Files that a later step reads: whether they can be is told before anything long."""


@dataclass(frozen=True)
class Components:
    """What a folder holds. objects: the parts by name. carried: entries of model_index.json that are kept
    without being loaded."""

    pipeline: str
    objects: dict[str, Any]
    carried: dict[str, Any]
    default_guidance: float


def load_folder(folder: Path, *, dtype: torch.dtype) -> Components:
    """Load a diffusers folder of a known family on the CPU.

    Raises UsageError if it is no such folder, naming what is missing; UnlikenessError if a file of it is
    damaged, out of bounds, or does not fit the others.
    """
    index = read_index(folder)
    family = index.family
    guidance = _default_guidance(folder, family)
    _check_copied(folder)
    configs = {
        name: read_config(folder, name, "config.json", index.classes[name]) for name in family.networks
    }
    with quiet():
        scheduler = load_scheduler(folder, index.classes["scheduler"])
        tokenizers = {name: load_tokenizer(folder, part=name) for name in family.tokenizers}
        networks: dict[str, Any] = {
            name: build(index.classes[name], config, f"the {name} of model {folder}")
            for name, config in configs.items()
        }
        objects = {**networks, **tokenizers, "scheduler": scheduler}
        family.check_parts(folder, objects)
        check_scheduler(folder, scheduler)
        half = dtype in (torch.float16, torch.bfloat16)
        for name, network in networks.items():
            fill(network, read_weights(folder, name, half=half), f"the {name} of model {folder}")
    return Components(family.pipeline, objects, index.carried, guidance)


def load_scheduler(folder: Path, kind: str) -> Any:
    """The scheduler of class `kind` in a model's folder. UnlikenessError for settings out of bounds."""
    import diffusers

    config = read_config(folder, "scheduler", "scheduler_config.json", kind, scheduler=True)
    with sentence(f"the scheduler of model {folder}"):
        return getattr(diffusers, kind).from_config({**config, "_class_name": kind})


def _default_guidance(folder: Path, family: Family) -> float:
    """That of unlikeness.json, if the folder has one."""
    own = folder / "unlikeness.json"
    if not own.exists() and not own.is_symlink():
        return family.default_guidance
    value = read_object(own, folder).get("default_guidance", family.default_guidance)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise UnlikenessError(
            f"{own} has default_guidance = {str(value)[:40]!r}, which must be a number from 0 to 100; "
            "correct it"
        )
    return float(value)


def _check_copied(folder: Path) -> None:
    for name in _COPIED:
        path = folder / name
        if path.exists() or path.is_symlink():
            try:
                check_file(path, folder)
            except UnreadableError as error:
                raise UnlikenessError(
                    f"{path} cannot be read ({error}); delete it or fetch it again"
                ) from error
