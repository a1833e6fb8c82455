"""A protector's file: safetensors in half precision, its settings and its story as JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness import __version__
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, parse_json, reason
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.settings import FORMAT, SHIPPED, check_weights, is_protector
from unlikeness.settings import build
from unlikeness.tensors import all_finite, read_header, read_safetensors, save_tensors

__all__ = ["SHIPPED", "Loaded", "is_protector", "load_protector", "save_protector"]

@dataclass(frozen=True)
class Loaded:
    """A protector and what its file says: `resolution` of the models that it was trained against [px], their
    names, the recipe's settings that were not the default.
    """

    network: Protector
    path: Path
    resolution: int
    about: Mapping[str, Any]


def save_protector(network: Protector, path: Path, *, about: Mapping[str, Any]) -> None:
    """Write `path` in one move. about: JSON-able; `resolution` must be among it.

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


def load_protector(name_or_path: str | Path = "rid-toybox") -> Loaded:
    """A shipped protector by its name, or a file that `train-protector` wrote; float32, frozen, on the CPU.

    Raises:
        UsageError: there is no such file or name, or the file is no protector.
        UnlikenessError: the file is damaged.
    """
    path = check_weights(str(name_or_path))
    try:
        metadata = read_header(path)
        if metadata.get("format") != FORMAT:  # another file may be large
            raise UsageError(f"{path} is no protector of `unlikeness train-protector`; name another file")
        tensors = read_safetensors(path)
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch it again") from error
    try:
        about = parse_json(metadata["about"])
        resolution = _side(about["resolution"])
        network = _network(about["network"], {name: value.float() for name, value in tensors.items()})
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UnlikenessError(f"{path} is damaged ({reason(error)}); fetch it again") from error
    return Loaded(network.requires_grad_(False).eval(), path, resolution, about)


def _side(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 1 << 16:
        raise ValueError(f"a resolution of {value} px")
    return value


def _network(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Protector:
    """The network around weights that it takes as they are: a file's say-so alone allocates nothing."""
    built = build(NetworkSettings, dict(settings))
    if built.blocks > len(weights):
        raise ValueError(f"{len(weights)} tensors for {built.blocks} blocks")
    with torch.device("meta"):
        network = Protector(built)
    network.load_state_dict(weights, assign=True)
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} is not finite")
    return network
