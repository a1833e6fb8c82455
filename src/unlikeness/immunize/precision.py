"""In what precision a model's files are, and a model brought to it: half precision in, half precision out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unlikeness.diffusion.known import read_index
from unlikeness.diffusion.lora import merged_copy
from unlikeness.diffusion.weights import needed_files
from unlikeness.errors import UnlikenessError
from unlikeness.foreign import UnreadableError
from unlikeness.tensors import read_tensors

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["as_stored", "rounding", "stored"]


def stored(folder: Path) -> dict[str, torch.dtype]:
    """The precision of the weights in a diffusers folder, part by part: that of most of their values.

    UnlikenessError if the weights cannot be read.
    """
    return {part: _of_file(_first_file(folder / part)) for part in read_index(folder).family.networks}


def as_stored(model: TextToImage, dtype: torch.dtype | None = None) -> TextToImage:
    """A copy of `model` in the precision of the files it came from; `model` itself is not changed.

    dtype: that of all parts instead. Without it a model that came from no folder keeps its own.
    """
    kinds = {} if model.source is None or dtype is not None else stored(model.source)
    cast = merged_copy(model, conditioner=True)
    cast.autoencoder = cast.autoencoder.copy()
    for part, network in zip(cast.family.networks, cast.networks, strict=True):
        torch.nn.Module.to(network, kinds.get(part, dtype) or network.dtype)
    return cast


@torch.no_grad()
def rounding(model: TextToImage, released: TextToImage, rounded: TextToImage) -> float:
    """How much of what was learnt is lost in the files: ‖θ_rounded − θ‖ / ‖θ − φ‖ over the U-Net's weights.

    0 if nothing was learnt. model: φ. Their U-Nets are on one device.
    """
    lost = moved = 0.0
    before, after, files = (dict(m.denoiser.named_parameters()) for m in (model, released, rounded))
    for name, theta in after.items():
        wide = theta.double()
        lost += float((files[name].double() - wide).square().sum())
        moved += float((wide - before[name].double()).square().sum())
    return float((lost / moved) ** 0.5) if moved else 0.0


def _first_file(folder: Path) -> Path:
    """A file of the weights that loading in full precision reads; with shards, the first of them."""
    files = needed_files(file.name for file in folder.iterdir())
    weights = [folder / name for name in files if name.endswith((".safetensors", ".bin"))]
    if not weights:
        raise UnlikenessError(f"{folder} holds no weights any more; fetch or save the model again")
    return weights[0]


def _of_file(file: Path) -> torch.dtype:
    sizes: dict[torch.dtype, int] = {}
    try:
        for tensor in read_tensors(file).values():
            if tensor.is_floating_point():
                sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    except UnreadableError as error:
        raise UnlikenessError(f"{file} cannot be read ({error}); fetch or save the model again") from error
    return max(sizes, key=lambda kind: sizes[kind], default=torch.float32)
