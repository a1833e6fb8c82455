"""A model from its name: whole, or as an outline, without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unlikeness.diffusion.devices import pick_device, pick_dtype
from unlikeness.diffusion.hub import check_name, locate
from unlikeness.diffusion.loading import check_weights, try_networks
from unlikeness.diffusion.model import TextToImage
from unlikeness.diffusion.single_file.opening import open_place
from unlikeness.provenance import own_name

__all__ = ["opened", "outline"]


def opened(
    kind: type[TextToImage], name_or_path: str | Path, *, device: str | torch.device | None,
    dtype: str | torch.dtype | None, revision: str | None, local_files_only: bool, carried: bool,
    prediction: str | None, model_config: str | Path | None,
) -> TextToImage:  # fmt: skip
    """See `TextToImage.from_pretrained`."""
    on = pick_device(device)
    precision = pick_dtype(dtype, on)
    half = precision in (torch.float16, torch.bfloat16)
    how: dict[str, Any] = {"prediction": prediction, "config": model_config}
    check_name(str(name_or_path), **how)
    place = locate(
        name_or_path, revision=revision, local_files_only=local_files_only, half=half, carried=carried
    )
    name = own_name(str(name_or_path))
    parts, found = open_place(place, dtype=precision, name=name, **how)
    model = kind.from_parts(
        parts.objects,
        pipeline=parts.pipeline,
        defaults=parts.defaults,
        source=None if Path(name_or_path).expanduser().is_file() else place.parent if found else place,
        carried=parts.carried,
        name=name,
    )
    model.single = found
    model.to(on, precision).freeze()
    check_weights(model, f"model {name_or_path}")
    try_networks(place, model)
    return model


def outline(
    name_or_path: str | Path, *, dtype: str | torch.dtype = "auto", prediction: str | None = None,
    model_config: str | Path | None = None,
) -> TextToImage:  # fmt: skip
    """The model of this name on torch's meta device, with sizes and no weights.

    dtype: as for `TextToImage.from_pretrained` on a CPU. The others, and what it raises: as there.
    """
    precision = pick_dtype(dtype, torch.device("cpu"))
    how: dict[str, Any] = {"prediction": prediction, "config": model_config}
    check_name(str(name_or_path), **how)
    place, name = locate(name_or_path, weights=False), own_name(str(name_or_path))
    parts, found = open_place(place, dtype=precision, name=name, outline=True, **how)
    model = TextToImage.from_parts(
        parts.objects, pipeline=parts.pipeline, defaults=parts.defaults, source=None if found else place,
        carried=parts.carried, name=name,
    )  # fmt: skip
    model.single = found
    for network in (model.denoiser, *model.conditioner.encoders.values()):
        torch.nn.Module.to(network, precision)
    return model.freeze()
