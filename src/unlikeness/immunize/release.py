"""An immunized model as a folder: weights, record and card, complete or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlikeness.diffusion.devices import pick_dtype
from unlikeness.diffusion.loading import read_index
from unlikeness.diffusion.lora import merge
from unlikeness.diffusion.single_file.writing import dtypes, write_file
from unlikeness.errors import UnlikenessError
from unlikeness.files import replacing
from unlikeness.foreign import UnreadableError
from unlikeness.immunize import card
from unlikeness.immunize.record import FILE
from unlikeness.networks.quantized import quantization
from unlikeness.networks.weights import needed_files
from unlikeness.paths import check_empty
from unlikeness.tensors import read_tensors, written

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["as_stored", "rounding", "save", "stored"]


def save(
    model: TextToImage,
    released: TextToImage,
    folder: Path,
    made: Mapping[str, Any],
    *,
    dtype: str | torch.dtype | None = None,
    single_file: bool = False,
) -> float:
    """Write what `immunize` made of `model` to a new folder: a diffusers model that any tool opens.

    Args:
        made: its record (`record.record`), written as immunization.json and summarized in README.md, above
            the text of the original's README.md.
        dtype: of the weights in the files. None: that of the original's files, part by part.
        single_file: write one file in the layout of the single file that `model` came from, under its name.

    Returns:
        The share of the change that rounding to the files' precision undoes (`rounding`). It is written into
        the record too.

    Raises:
        UsageError: the folder is not empty.
        UnlikenessError: it cannot be written; then nothing of it is left.
    """
    check_empty(folder)
    files = as_stored(released, None if dtype is None else pick_dtype(dtype, released.device))
    lost = rounding(model, released, files)
    content = {**made, "dtype": str(files.dtype).removeprefix("torch."), "lost_to_rounding": round(lost, 6)}
    text = card.card(content, card.read_card(model.source))
    as_json = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with written(f"the model cannot be saved to {folder}", "free space or give another folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as whole:
            if single_file and files.single is not None:
                whole.mkdir()
                write_file(files, (whole / files.single.path.name).with_suffix(".safetensors"))
                if files.single.said:  # what the file itself may not say
                    beside = {"prediction": files.single.said}
                    (whole / "unlikeness.json").write_text(json.dumps(beside) + "\n", "utf-8")
            else:
                files.save_pretrained(whole)
            (whole / FILE).write_text(as_json, "utf-8", errors="replace")
            (whole / card.FILE).write_text(text, "utf-8", errors="replace")
    return lost


def as_stored(model: TextToImage, dtype: torch.dtype | None = None) -> TextToImage:
    """A copy of `model` in the precision of the files it came from; `model` itself is not changed.

    dtype: that of all parts instead. Without it a model that came from no folder keeps its own.
    """
    kinds = {}
    if dtype is None and model.single is not None:
        kinds = dtypes(model.single)
    elif dtype is None and model.source is not None:
        kinds = stored(model.source)
    cast = model.copy(conditioner=True)
    cast.autoencoder = cast.autoencoder.copy()
    for part, network in zip(cast.family.networks, cast.networks, strict=True):
        wanted = kinds.get(part, dtype) or network.dtype
        if getattr(network, "peft_config", None):
            if torch.promote_types(wanted, network.dtype) != network.dtype:
                torch.nn.Module.to(network, wanted)  # in which the adapter is added
            merge(network)
        torch.nn.Module.to(network, wanted)
    return cast


def stored(folder: Path) -> dict[str, torch.dtype]:
    """The precision of the weights in a diffusers folder, part by part: that of most of their values;
    bfloat16 for quantized ones.

    UnlikenessError if the weights cannot be read.
    """
    return {part: _of_file(_first_file(folder / part)) for part in read_index(folder).family.networks}


@torch.no_grad()
def rounding(model: TextToImage, released: TextToImage, rounded: TextToImage) -> float:
    """The share of the change that is lost in the files: ‖θ_rounded − θ‖ / ‖θ − φ‖ over the denoiser.

    0 if nothing has changed. model: φ. All three are on one device.
    """
    lost = moved = 0.0
    before, files = (dict(m.denoiser.named_parameters()) for m in (model, rounded))
    for name, theta in _with_updates(released.denoiser):
        wide = theta.double()
        lost += float((files[name].double() - wide).square().sum())
        moved += float((wide - before[name].double()).square().sum())
    return float((lost / moved) ** 0.5) if moved else 0.0


def _with_updates(network: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights by name as they would be without an adapter but with its updates, in its precision."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {f"{name}.": one for name, one in network.named_modules() if isinstance(one, BaseTunerLayer)}
    for name, weight in network.named_parameters():
        layer, below, own = name.partition("base_layer.")
        if not below:
            if ".lora_" not in name:
                yield name, weight
            continue
        updates = layers[layer].active_adapters if own == "weight" else ()
        yield layer + own, sum((layers[layer].get_delta_weight(one) for one in updates), start=weight)


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
        tensors = read_tensors(file)
        if quantization(tensors):
            return torch.bfloat16
        for tensor in tensors.values():
            if tensor.is_floating_point():
                sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    except UnreadableError as error:
        raise UnlikenessError(f"{file} cannot be read ({error}); fetch or save the model again") from error
    return max(sizes, key=lambda kind: sizes[kind], default=torch.float32)
