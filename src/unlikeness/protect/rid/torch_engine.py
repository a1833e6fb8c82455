"""Networks computed by torch: ours on a GPU or without ONNX Runtime, and the authors' own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlikeness.diffusion.devices import computes_bfloat16, pick_device
from unlikeness.protect.rid.official import load_official
from unlikeness.protect.rid.opening import Array, Opened
from unlikeness.protect.rid.saved import Saved
from unlikeness.protect.rid.settings import LARGEST_BUDGET
from unlikeness.protect.rid.weights import loaded

__all__ = ["open_official", "open_ours"]

Delta = Callable[[Tensor, Tensor], Tensor]


def open_ours(saved: Saved, device: str) -> Opened:
    """A protector on a device, in bfloat16 where that is faster."""
    where, dtype = _place(device)
    network = loaded(saved).network.to(where, dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def delta(images: Tensor, plane: Tensor) -> Tensor:
        there = plane.float().to(where)
        seen = torch.cat([2 * images.to(where) - 1, there / LARGEST_BUDGET], 1)
        unit = network.unit(seen.to(dtype).contiguous(memory_format=torch.channels_last))
        return (unit.float() * (there / 255)).to(images.device)

    return Opened(
        saved.resolution, saved.fingerprint, _arrays(delta), delta, "torch", str(where), str(dtype),
        saved.about,
    )  # fmt: skip


def open_official(weights: str, device: str, way: str) -> Opened:
    """The authors' network; see `opening.open_network`."""
    where, dtype = _place(device)
    network = load_official(weights)
    mark = _digest(network)  # before the dtype changes
    network.to(where, dtype)

    def delta(images: Tensor, plane: Tensor) -> Tensor:
        unit = network.delta(images.float(), 255.0, way=way)
        return unit * (plane.float().to(images.device) / 255)

    return Opened(network.side, mark, _arrays(delta), delta, "torch", str(where), str(dtype))


def _place(device: str) -> tuple[torch.device, torch.dtype]:
    where = pick_device(device)
    return where, torch.bfloat16 if computes_bfloat16(where) else torch.float32


def _arrays(delta: Delta) -> Callable[[Array, Array], Array]:
    def arrays(images: Array, plane: Array) -> Array:
        found: Array = delta(torch.from_numpy(images), torch.from_numpy(plane)).numpy()
        return found

    return arrays


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
