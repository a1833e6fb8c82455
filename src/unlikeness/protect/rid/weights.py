"""Trained networks as files: our own format, read and written, and one opener for every kind of file.

Our file is safetensors in half precision. Its header holds the network's sizes and its training, as JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlikeness import __version__
from unlikeness.diffusion.devices import computes_bfloat16
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, parse_json, reason
from unlikeness.protect.rid.network import Protector
from unlikeness.protect.rid.official import load_official
from unlikeness.protect.rid.settings import (
    FORMAT,
    LARGEST_BUDGET,
    NetworkSettings,
    check_weights,
    is_protector,
)  # fmt: skip
from unlikeness.settings import build
from unlikeness.tensors import all_finite, read_header, read_safetensors, save_tensors

__all__ = ["Loaded", "Opened", "load_protector", "open_network", "save_protector", "side_of"]

_OFFICIAL = {".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class Loaded:
    """A protector and what its file says: the `resolution` of the models that it was trained against [px],
    their names, and the settings of the training that were not the default.
    """

    network: Protector
    path: Path
    resolution: int
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """A network ready for use.

    Attributes:
        resolution: of the models that it was trained against [px].
        fingerprint: a digest of its weights, the same on every device.
        delta: (images [B, 3, H, W] in [0, 1], budget plane [B, 1, H, W] in n/255) -> δ, float32, on the
            images' device, nowhere beyond the budget.
        device, dtype: where and in which precision it computes.
        about: what its file says of its training; an official checkpoint says nothing.
    """

    resolution: int
    fingerprint: str
    delta: Callable[[Tensor, Tensor], Tensor]
    device: torch.device
    dtype: torch.dtype
    about: Mapping[str, Any] = field(default_factory=dict)


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


def load_protector(name_or_path: str | Path = "rid-toybox") -> Loaded:
    """A shipped protector by its name, or a file of `train-protector`; float32, frozen, on the CPU.

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
        resolution = side_of(about)
        network = _network(about["network"], {name: value.float() for name, value in tensors.items()})
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UnlikenessError(f"{path} is damaged ({reason(error)}); fetch it again") from error
    return Loaded(network.requires_grad_(False).eval(), path, resolution, about)


def side_of(about: Any) -> int:
    """The resolution [px] in a file's own description. KeyError, TypeError, ValueError if there is none."""
    side = about["resolution"]
    if type(side) is not int or not 1 <= side <= 1 << 16:
        raise ValueError(f"its resolution is {str(side)[:40]}, which must be a whole number from 1 to 65536")
    return side


def _network(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Protector:
    """The network around these weights. The sizes that a file claims allocate no memory."""
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


def open_network(weights: str, device: torch.device, *, way: str = "resize") -> Opened:
    """Open by the file's suffix: .onnx, the official .bin (.pt, .pth, .ckpt), otherwise ours by name or file.

    A .safetensors file that `train-protector` did not write is read as an official one.

    way: how the official network, which computes squares of one size, handles others: `OfficialRid.delta`.

    Raises:
        UsageError, UnlikenessError: of the file's own reader.
    """
    suffix = Path(weights).suffix.lower()
    if suffix == ".onnx":
        from unlikeness.protect.rid.onnx_file import OnnxProtector

        onnx = OnnxProtector(weights)
        mark = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]
        return Opened(onnx.resolution, mark, onnx, torch.device("cpu"), torch.float32, onnx.about)
    dtype = torch.bfloat16 if computes_bfloat16(device) else torch.float32
    safetensors = suffix == ".safetensors" and Path(weights).is_file()
    if suffix in _OFFICIAL or (safetensors and not is_protector(Path(weights))):
        return _official(weights, device, dtype, way)
    return _ours(load_protector(weights), device, dtype)


def _ours(loaded: Loaded, device: torch.device, dtype: torch.dtype) -> Opened:
    mark = _digest(loaded.network)  # before the dtype changes
    network = loaded.network.to(device, dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def delta(images: Tensor, plane: Tensor) -> Tensor:
        there = plane.float().to(device)
        seen = torch.cat([2 * images.to(device) - 1, there / LARGEST_BUDGET], 1)
        unit = network.unit(seen.to(dtype).contiguous(memory_format=torch.channels_last))
        return (unit.float() * (there / 255)).to(images.device)

    return Opened(loaded.resolution, mark, delta, device, dtype, loaded.about)


def _official(weights: str, device: torch.device, dtype: torch.dtype, way: str) -> Opened:
    network = load_official(weights)
    mark = _digest(network)
    network.to(device, dtype)

    def delta(images: Tensor, plane: Tensor) -> Tensor:
        unit = network.delta(images.float(), 255.0, way=way)
        return unit * (plane.float().to(images.device) / 255)

    return Opened(network.side, mark, delta, device, dtype)


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
