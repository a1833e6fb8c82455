"""Trained networks of three kinds behind one face: our own, the official one, and an exported ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlikeness.diffusion.devices import computes_bfloat16
from unlikeness.protect.rid.network import LARGEST_BUDGET
from unlikeness.protect.rid.official import load_official
from unlikeness.protect.rid.weights import Loaded, is_protector, load_protector

__all__ = ["Opened", "open_network"]

_OFFICIAL = {".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class Opened:
    """A network ready for use.

    Attributes:
        resolution: of the models that it was trained against [px].
        fingerprint: a digest of its weights, on every device the same.
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


def open_network(weights: str, device: torch.device, *, way: str = "resize") -> Opened:
    """By the file's suffix: .onnx, the official .bin (.pt, .pth, .ckpt), else ours by name or file.

    A .safetensors file that `train-protector` has not written is read as an official one.

    way: how the official network, which only knows squares of one size, meets pictures of another: see
    `OfficialRid.delta`.

    Raises:
        UsageError, UnlikenessError: what the file's own reader raises.
    """
    suffix = Path(weights).suffix.lower()
    if suffix in _OFFICIAL:
        return _official(weights, device, way)
    if suffix == ".onnx":
        return _onnx(weights)
    if suffix == ".safetensors" and Path(weights).is_file() and not is_protector(Path(weights)):
        return _official(weights, device, way)
    return _ours(load_protector(weights), device)


def _ours(loaded: Loaded, device: torch.device) -> Opened:
    """In bfloat16, channels last, where that is quicker."""
    mark = _digest(loaded.network)
    dtype = torch.bfloat16 if computes_bfloat16(device) else torch.float32
    network = loaded.network.to(device, dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def delta(images: Tensor, plane: Tensor) -> Tensor:
        there = plane.float().to(device)
        seen = torch.cat([2 * images.to(device) - 1, there / LARGEST_BUDGET], 1)
        unit = network.unit(seen.to(dtype).contiguous(memory_format=torch.channels_last))
        return (unit.float() * (there / 255)).to(images.device)

    return Opened(loaded.resolution, mark, delta, device, dtype, loaded.about)


def _official(weights: str, device: torch.device, way: str) -> Opened:
    network = load_official(weights)
    mark = _digest(network)  # the same whatever it will compute in
    dtype = torch.bfloat16 if computes_bfloat16(device) else torch.float32
    network.to(device, dtype)

    def delta(images: Tensor, plane: Tensor) -> Tensor:
        unit = network.delta(images.float(), 255.0, way=way)
        return unit * (plane.float().to(images.device) / 255)

    return Opened(network.side, mark, delta, device, dtype)


def _onnx(weights: str) -> Opened:
    from unlikeness.protect.rid.onnx_network import OnnxProtector

    network = OnnxProtector(weights)
    mark = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]
    return Opened(network.resolution, mark, network, torch.device("cpu"), torch.float32, network.about)


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
