"""Trained networks as files: our own format, read into torch and written.

Our file is safetensors in half precision. Its header holds the network's sizes and its training, as JSON.
`opening` opens files for use, `saved` reads them without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unlikeness import __version__
from unlikeness.errors import NotFiniteError
from unlikeness.protect.rid.network import Protector
from unlikeness.protect.rid.saved import Saved, damaged, read_saved
from unlikeness.protect.rid.settings import FORMAT
from unlikeness.tensors import all_finite, save_tensors

__all__ = ["Loaded", "load_protector", "loaded", "save_protector"]


@dataclass(frozen=True)
class Loaded:
    """A protector and what its file says: the `resolution` of the models that it was trained against [px],
    their names, and the settings of the training that were not the default.
    """

    network: Protector
    path: Path
    resolution: int
    about: Mapping[str, Any]


def save_protector(network: Protector, path: Path, *, about: Mapping[str, Any]) -> None:
    """Write `path` in one move. about: JSON-able, with `resolution`.

    UnlikenessError if it cannot be written; NotFiniteError, with nothing written, if a weight is not finite.
    """
    header = {"network": asdict(network.settings), "version": __version__, **about}
    tensors = {name: value.half().cpu().contiguous() for name, value in network.state_dict().items()}
    if not all_finite(tensors.values()):
        raise NotFiniteError(
            f"the protector is not written to {path}: its weights are not finite in float16, as after a "
            "training that diverged; lower the learning rate"
        )
    save_tensors(tensors, path, {"format": FORMAT, "about": json.dumps(header)})


def load_protector(name_or_path: str | Path = "rid-photo") -> Loaded:
    """A shipped protector by its name, or a file of `train-protector`; float32, frozen, on the CPU.

    Raises:
        UsageError: there is no such file or name, or the file is no protector.
        UnlikenessError: the file is damaged.
    """
    return loaded(read_saved(name_or_path))


def loaded(saved: Saved) -> Loaded:
    """The network of a file that was read. UnlikenessError if its weights do not fit its sizes."""
    weights = {name: torch.from_numpy(array) for name, array in saved.arrays.items()}
    try:
        with torch.device("meta"):  # the sizes that a file claims allocate no memory
            network = Protector(saved.settings)
        network.load_state_dict(weights, assign=True)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise damaged(saved.path, error) from error
    return Loaded(network.requires_grad_(False).eval(), saved.path, saved.resolution, saved.about)
