"""A model without its weights, on torch's meta device: what it will hold, from its configurations alone."""

from __future__ import annotations

from pathlib import Path

import torch

from unlikeness.diffusion.devices import pick_dtype
from unlikeness.diffusion.hub import locate
from unlikeness.diffusion.loading import load_folder
from unlikeness.diffusion.model import TextToImage
from unlikeness.errors import UsageError
from unlikeness.provenance import own_name

__all__ = ["outline"]


def outline(name_or_path: str | Path, *, dtype: str | torch.dtype = "auto") -> TextToImage:
    """The model of this folder or hub name, with sizes and no weights.

    dtype: as for `TextToImage.from_pretrained` on a CPU. UsageError for a single file; else it raises as
    `from_pretrained` does.
    """
    precision = pick_dtype(dtype, torch.device("cpu"))
    folder = locate(name_or_path, weights=False)
    if folder.is_file():
        raise UsageError(f"{folder} is a single file; its memory is known for a diffusers folder only")
    name = own_name(str(name_or_path))
    parts = load_folder(folder, dtype=precision, name=name, outline=True)
    model = TextToImage.from_parts(
        parts.objects, pipeline=parts.pipeline, defaults=parts.defaults, source=folder, carried=parts.carried,
        name=name,
    )  # fmt: skip
    for network in (model.denoiser, *model.conditioner.encoders.values()):
        torch.nn.Module.to(network, precision)
    return model.freeze()
