"""A changed denoiser back into a copy of the single file that the model came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.diffusion.single_file.kinds import Found
from unlikeness.diffusion.single_file.opening import converted, read_file, tensors_of
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.files import replacing
from unlikeness.tensors import for_readers, read_layout

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["check_layout", "dtypes", "write_file"]

_EMA = "model_ema."
"""Averages of the denoiser's weights, which some files hold beside them. A changed file must not keep the
unchanged ones."""

_STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")
"""Entries of a header that are wrong once a weight has changed."""


def dtypes(found: Found) -> dict[str, torch.dtype]:
    """The precision of each part in the file: that of most of its values; bfloat16 if it is quantized."""
    if found.quantized:
        return dict.fromkeys(found.parts, torch.bfloat16)
    tensors = read_file(found.path)
    return {part: _usual(tensors_of(found, part, tensors)) for part in found.parts}


def check_layout(found: Found) -> None:
    """UsageError for a file whose layout cannot be written."""
    if found.quantized:
        raise UsageError(
            f"{found.path} is quantized ({found.quantized}), and one file in its layout cannot be written; "
            "leave --single-file out, for a diffusers folder"
        )


def write_file(model: TextToImage, path: Path) -> Path:
    """Write a copy of `model.single` to `path` with the weights of the model's denoiser. Returns `path`.

    Names and precisions are those of the original. Every tensor that has not changed, and everything but the
    denoiser, keeps its bytes. Averages of weights (model_ema) are left out; digests in the header too. A
    .ckpt becomes a safetensors file with the same names.
    """
    if model.single is None:
        raise UnlikenessError("the model did not come from a single file; save it as a folder")
    check_layout(model.single)
    source, tensors = model.single.path, read_file(model.single.path)
    changed = back(model, tensors)
    with replacing(path) as work:
        if source.suffix.lower() == ".safetensors" and not any(name.startswith(_EMA) for name in tensors):
            _patch(source, work, changed)
        else:
            _rewrite(source, work, {name: changed.get(name, tensor) for name, tensor in tensors.items()})
        for_readers(work)
    return path


@torch.no_grad()
def back(model: TextToImage, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The denoiser's weights under the names, in the shapes and in the precisions of the file.

    diffusers' conversion renames tensors and may split them by rows. It is run on row numbers, and what comes
    out says where each row of the file is.
    """
    assert model.single is not None
    found, network = model.single, model.denoiser
    own = tensors_of(found, found.kind.denoiser, tensors)
    inside = {name: one for name, one in own.items() if one.ndim and one.numel()}  # empty ones claim any rows
    numbers: dict[str, Tensor] = {}
    rows = 0
    for name, one in inside.items():
        numbers[name] = torch.arange(rows, rows + len(one)).reshape(-1, *[1] * (one.ndim - 1))
        rows += len(one)
    new = dict(network.state_dict())
    names = list(new)
    part, row = torch.full((rows,), -1), torch.zeros(rows, dtype=torch.long)
    for name, place in converted(found, found.kind.denoiser, numbers, network).items():
        if name in new:
            place = place.flatten()
            part[place], row[place] = names.index(name), torch.arange(len(place))
    changed = {}
    for name, one in inside.items():
        places = numbers[name].flatten()
        parts, counts = torch.unique_consecutive(part[places], return_counts=True)
        if -1 in parts:
            continue  # a tensor that the network does not have
        pieces = torch.split(row[places], counts.tolist())
        whole = torch.cat(
            [new[names[int(k)]].detach().cpu()[piece] for k, piece in zip(parts, pieces, strict=True)]
        )
        changed[name] = whole.to(one.dtype).reshape(one.shape)
    return changed


def _patch(source: Path, work: Path, changed: Mapping[str, Tensor]) -> None:
    """Copy the file, and write the changed tensors in their places."""
    shutil.copyfile(source, work)
    layout = read_layout(work)
    with work.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        header["__metadata__"] = _kept(layout.metadata)
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))  # spaces at the end belong to the format
        for name, tensor in changed.items():
            file.seek(layout.tensors[name].at)
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _rewrite(source: Path, work: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    metadata = read_layout(source).metadata if source.suffix.lower() == ".safetensors" else {}
    kept = {name: one.contiguous() for name, one in tensors.items() if not name.startswith(_EMA)}
    save_file(kept, work, {"format": "pt", **_kept(metadata)})


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name not in _STALE}


def _usual(tensors: Mapping[str, Tensor]) -> torch.dtype:
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        if tensor.is_floating_point():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=lambda kind: sizes[kind], default=torch.float32)
