"""Low-rank adapters in the U-Net, in and out of diffusers' own file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlikeness.diffusion.lora_file import read_lora
from unlikeness.diffusion.quiet import quiet
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.files import replacing
from unlikeness.foreign import reason
from unlikeness.tensors import all_finite, for_readers, written

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["FILE", "add_lora", "has_lora", "load_lora", "merge", "merged_copy", "remove_lora", "save_lora"]

FILE = "pytorch_lora_weights.safetensors"
DIVERGED = "its weights are not finite (NaN or infinity), as after a training that diverged"
"""Why a model is not written."""


def add_lora(model: TextToImage, *, rank: int, seed: int = 0) -> list[torch.nn.Parameter]:
    """Put an untrained adapter (alpha = rank: updates count in full) into the U-Net, in place.

    Returns its parameters, float32, which are then the only ones that require a gradient. The down
    projections are Gaussian, drawn from `seed`; the up projections are zero, so that nothing changes yet.
    """
    from peft import LoraConfig

    targets = list(model.family.lora_targets)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
    model.denoiser.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.denoiser.add_adapter(config)
    parameters: list[torch.nn.Parameter] = [p for p in model.denoiser.parameters() if p.requires_grad]
    for p in parameters:
        p.data = p.data.float() if p.dtype in (torch.float16, torch.bfloat16) else p.data
    return parameters


def has_lora(model: TextToImage) -> bool:
    """Whether the U-Net has an adapter."""
    return bool(getattr(model.denoiser, "peft_config", None))


def save_lora(model: TextToImage, folder: Path) -> Path:
    """Write the U-Net's adapter as `pytorch_lora_weights.safetensors` into `folder`; returns the file.

    Any diffusers pipeline loads it with `load_lora_weights`. UsageError if the model has no adapter, or one
    that was read from a file (its scale and its part in the text encoder would be lost), or if the file
    exists; UnlikenessError if it cannot be written.
    """
    from diffusers.loaders import StableDiffusionLoraLoaderMixin
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    if not has_lora(model):
        raise UsageError("this model has no LoRA to save; personalize with the method lora, or save it whole")
    if list(model.denoiser.peft_config) != ["default"]:
        raise UsageError("this model's LoRA came from a file; copy that file, or save the model whole")
    if (folder / FILE).exists():
        raise UsageError(f"{folder / FILE} exists, and is never overwritten; give another folder")
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(model.denoiser))
    layers = {name: tensor.detach().cpu().contiguous() for name, tensor in layers.items()}
    if not all_finite(layers.values()):
        raise NotFiniteError(f"the LoRA is not saved to {folder}: {DIVERGED}")
    with written(f"the LoRA cannot be saved to {folder}", "free space or give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / FILE) as work:
            with quiet():
                StableDiffusionLoraLoaderMixin.save_lora_weights(
                    folder, unet_lora_layers=layers, weight_name=work.name, safe_serialization=True
                )
            for_readers(work)
    return folder / FILE


def load_lora(model: TextToImage, path: str | Path) -> TextToImage:
    """A copy of `model` with the LoRA of a file, or of a folder with `pytorch_lora_weights.safetensors`.

    What diffusers reads (its own and the kohya format) is read, for the U-Net and the text encoder;
    safetensors only. UsageError if there is no such file; UnlikenessError if it does not fit the model.
    """
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not file.is_file() or file.suffix != ".safetensors":
        raise UsageError(f"{file} is no LoRA file; give a .safetensors file, or a folder with {FILE}")
    try:
        with quiet():
            tensors, metadata = read_lora(file)
            layers, alphas = Loader.lora_state_dict(dict(tensors))
            told = {"network_alphas": alphas, "metadata": metadata}  # either may hold the updates' scale
            for_text = any("text_encoder" in key for key in layers)
            adapted = model.copy(conditioner=for_text)
            Loader.load_lora_into_unet(layers, unet=adapted.denoiser, **told)
            if for_text:
                encoder = adapted.conditioner.encoders["text_encoder"]
                Loader.load_lora_into_text_encoder(layers, text_encoder=encoder, **told)
    except (MemoryError, torch.OutOfMemoryError):  # no fault of the file's, and told as everywhere
        raise
    except Exception as error:
        raise UnlikenessError(
            f"the LoRA {file} cannot be used with this model ({reason(error)}); give one that was made for it"
        ) from error
    if not all_finite(tensors.values()):
        raise NotFiniteError(
            f"the LoRA {file} has weights that are not finite (NaN or infinity): they are damaged, or its "
            "training has diverged; fetch or make it again"
        )
    if not has_lora(adapted) and not for_text:
        raise UnlikenessError(f"the LoRA {file} holds nothing for this U-Net; give one that was made for it")
    for part in (adapted.denoiser, *adapted.conditioner.encoders.values()):
        part.to(model.device).requires_grad_(False)
    return adapted


def merged_copy(model: TextToImage, *, conditioner: bool = False) -> TextToImage:
    """`model.copy`, with the adapters of what is copied added to its weights: a base to train further."""
    copied = model.copy(conditioner=conditioner)
    for part in (copied.denoiser, *(copied.conditioner.encoders.values() if conditioner else ())):
        if getattr(part, "peft_config", None):
            merge(part)
    return copied


def remove_lora(model: TextToImage) -> None:
    """Take the adapter out of the denoiser, unmerged."""
    _remove(model.denoiser)


def merge(network: Any) -> Any:
    """Add a network's adapters to its weights and take their layers out, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
    _remove(network)
    return network


def _remove(network: Any) -> None:
    from diffusers.utils import recurse_remove_peft_layers

    if hasattr(network, "unload_lora"):  # diffusers
        network.unload_lora()
    else:  # transformers
        recurse_remove_peft_layers(network)
        network.delete_adapter(list(network.peft_config))
