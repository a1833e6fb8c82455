"""Write a trained adapter (LoRA) as a file, with the names of diffusers or of kohya's sd-scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.diffusion.adapters import FILE, check_form
from unlikeness.diffusion.lora import DIVERGED, has_lora
from unlikeness.diffusion.lora_names import KOHYA, kohya_layers
from unlikeness.errors import NotFiniteError, UsageError
from unlikeness.files import replacing
from unlikeness.networks.building import quiet
from unlikeness.tensors import all_finite, for_readers, written

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["FILE", "check_writable", "save_lora"]

Layers = Mapping[str, Mapping[str, Tensor]]
"""By part and by peft's name: the factors."""

_CLIP = "text_model."
"""How CLIP's layers begin for every reader; transformers 5 leaves it out in a CLIPTextModel."""

_ENDS = ("lora_A", "lora_B")


def check_writable(model: TextToImage, form: str) -> None:
    """UsageError if a LoRA of this model cannot be written in this form: to call before it is trained."""
    check_form(form)
    if form == "kohya":
        ends = tuple(f".{target}" for target in model.family.lora_targets)
        kohya_layers(model, (name for name, _ in model.denoiser.named_modules() if f".{name}".endswith(ends)))


def save_lora(model: TextToImage, folder: Path, *, form: str = "diffusers") -> Path:
    """Write the model's adapter as `pytorch_lora_weights.safetensors` into `folder`; returns the file.

    form: one of FORMS. `load_lora_weights` of diffusers reads both, but kohya's for Stable Diffusion 3, whose
    names it does not know. Other tools know kohya's.

    UsageError if the model has no adapter, if the file exists, or for kohya's form in a family whose original
    names are not known. UnlikenessError if the file cannot be written.
    """
    from peft.utils import get_peft_model_state_dict

    check_form(form)
    if not has_lora(model):
        raise UsageError("this model has no LoRA to save; personalize with the method lora, or save it whole")
    if (folder / FILE).exists():
        raise UsageError(f"{folder / FILE} exists, and is never overwritten; give another folder")
    layers: dict[str, dict[str, Tensor]] = {}
    for part in (model.family.denoiser, *model.family.encoders):
        if getattr(model.parts[part], "peft_config", None):
            start = "" if part == model.family.denoiser else _CLIP
            layers[part] = {
                f"{start}{name.removeprefix(start)}": tensor.detach().cpu().contiguous()
                for name, tensor in get_peft_model_state_dict(model.parts[part]).items()
            }
    if not all_finite(tensor for inside in layers.values() for tensor in inside.values()):
        raise NotFiniteError(f"the LoRA is not saved to {folder}: {DIVERGED}")
    with written(f"the LoRA cannot be saved to {folder}", "free space or give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / FILE) as work:
            if form == "kohya":
                _write_kohya(model, layers, work)
            else:
                _write_diffusers(model, layers, work)
            for_readers(work)
    return folder / FILE


def _config(model: TextToImage) -> tuple[int, float]:
    """(rank, alpha) of the adapter."""
    config = model.denoiser.peft_config["default"]
    return int(config.r), float(config.lora_alpha)


def _write_diffusers(model: TextToImage, layers: Layers, work: Path) -> None:
    """alpha / rank is multiplied into the up projections: a reader without it takes 1."""
    rank, alpha = _config(model)
    scaled = {
        part: {name: one * (alpha / rank) if ".lora_B." in name else one for name, one in inside.items()}
        for part, inside in layers.items()
    }
    with quiet():
        model.family.loader().save_lora_weights(
            work.parent, weight_name=work.name, safe_serialization=True,
            **{f"{part}_lora_layers": model.family.stored_layers(one) for part, one in scaled.items()},
        )  # fmt: skip


def _write_kohya(model: TextToImage, layers: Layers, work: Path) -> None:
    """`lora_unet_LAYER.lora_down.weight`, `.lora_up.weight` and `.alpha`, as sd-scripts names them; of text
    encoders `lora_te_`, or `lora_te1_` and `lora_te2_`.

    Where the original layout has several layers as one (`qkv`), so has the file. The factors of each stand in
    blocks of their own, with zeros beside them, as sd-scripts' split_qkv writes them and diffusers splits
    them. The rank is then that of all together, and alpha grows with it.
    """
    from safetensors.torch import save_file

    rank, alpha = _config(model)
    denoiser, *encoders = layers
    found: dict[str, Tensor] = {}
    trained = {name.removesuffix(".weight").rpartition(".")[0] for name in layers[denoiser]}
    modules = dict(model.denoiser.named_modules())
    for name, inside in kohya_layers(model, trained).items():
        ends = {
            end: [_factor(layers[denoiser], one, end, modules[one], rank) for one in inside] for end in _ENDS
        }
        found[f"{KOHYA}{name}.lora_down.weight"] = torch.cat(ends["lora_A"])
        found[f"{KOHYA}{name}.lora_up.weight"] = (
            ends["lora_B"][0] if len(inside) == 1 else _blocks(ends["lora_B"])
        )
        found[f"{KOHYA}{name}.alpha"] = torch.tensor(alpha * len(inside))
    for part in encoders:
        number = "" if len(model.family.encoders) == 1 else str(model.family.encoders.index(part) + 1)
        for name, tensor in layers[part].items():
            layer, _, end = name.removesuffix(".weight").rpartition(".")
            kohya = f"lora_te{number}_{layer.replace('.', '_')}"
            found[f"{kohya}.{'lora_down' if end == 'lora_A' else 'lora_up'}.weight"] = tensor
            found[f"{kohya}.alpha"] = torch.tensor(alpha)
    about = {
        "format": "pt", "ss_network_module": model.family.kohya_module,
        "ss_network_dim": str(rank), "ss_network_alpha": str(alpha),
    }  # fmt: skip
    save_file(found, work, about)


def _blocks(parts: Sequence[Tensor]) -> Tensor:
    """The parts on the diagonal, zeros elsewhere."""
    rows, columns = sum(len(one) for one in parts), sum(one.shape[1] for one in parts)
    whole, row, column = parts[0].new_zeros(rows, columns), 0, 0
    for one in parts:
        whole[row : row + len(one), column : column + one.shape[1]] = one
        row, column = row + len(one), column + one.shape[1]
    return whole


def _factor(layers: Mapping[str, Tensor], name: str, end: str, module: Any, rank: int) -> Tensor:
    """A factor of a layer's update: the trained one, or zeros where the layer is not trained."""
    found = layers.get(f"{name}.{end}.weight")
    if found is not None:
        return found
    rows, columns = module.weight.shape
    return torch.zeros((rank, columns) if end == "lora_A" else (rows, rank))
