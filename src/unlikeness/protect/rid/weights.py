"""A protector's file: safetensors in half precision, its settings and its story as JSON in the header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unlikeness import __version__
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.settings import build

__all__ = ["SHIPPED", "Loaded", "load_protector", "save_protector"]

SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the weights that travel with the package: NAME.safetensors, with its model card NAME.md."""

_FORMAT = "unlikeness protector 1"


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
    """Write `path` in one move. about: JSON-able; `resolution` must be among it."""
    from safetensors.torch import save_file

    header = {"network": asdict(network.settings), "version": __version__, **about}
    tensors = {name: value.half().cpu().contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, part, metadata={"format": _FORMAT, "about": json.dumps(header)})
    part.replace(path)


def load_protector(name_or_path: str | Path = "rid-toybox") -> Loaded:
    """A shipped protector by its name, or a file that `train-protector` wrote; float32, frozen, on the CPU.

    Raises:
        UsageError: there is no such file or name, or the file is no protector.
        UnlikenessError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    shipped = SHIPPED / f"{name_or_path}.safetensors"
    path = shipped if shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.safetensors"))) or "none"
        raise UsageError(f"weights {name_or_path} are no file and no shipped protector (there are: {known})")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch it again") from error
    if metadata.get("format") != _FORMAT:
        raise UsageError(f"{path} is no protector of `unlikeness train-protector`; name another file")
    try:
        about = json.loads(metadata["about"])
        network = Protector(build(NetworkSettings, about["network"]))
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
        resolution = int(about["resolution"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).split("\n")[0]
        raise UnlikenessError(f"{path} is damaged ({first}); fetch it again") from error
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise UnlikenessError(f"{path} is damaged: a weight is not a finite number; fetch it again")
    return Loaded(network.requires_grad_(False).eval(), path, resolution, about)
