"""Low-rank adapters (LoRA): put into a model, taken out again, and read from files of every form."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.diffusion.adapters import PEFT_FILE, find_lora
from unlikeness.diffusion.lora_names import Update, made_for, of_model, updates
from unlikeness.diffusion.lora_updates import bias_after, weight_after
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, parse_json, read_json, reason
from unlikeness.tensors import all_finite, read_header, read_safetensors

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = [
    "DIVERGED", "adaptable_copy", "add_lora", "has_lora", "load_lora", "merge", "merged_copy", "read_lora",
    "remove_lora", "use_lora",
]  # fmt: skip

DIVERGED = "its weights are not finite (NaN or infinity), as after a training that diverged"
"""Why a model is not written."""

CLIP_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The layers of a CLIP that get an adapter, as in diffusers' train_dreambooth_lora.py and its relatives."""

_HEADER, _PEFT_CONFIG = "lora_adapter_metadata", "adapter_config.json"
_NAME = re.compile(r"[\w.\-]{1,300}", re.ASCII)

_HIGHEST_RANK = 1024

_MOST = 20_000
"""Tensors of a file: a LoRA of all layers of Stable Diffusion has 1,500."""


def add_lora(
    model: TextToImage, *, rank: int, alpha: float | None = None, text_encoder: bool = False, seed: int = 0,
    group: str = "all", name: str = "default", dora: bool = False,
) -> list[torch.nn.Parameter]:  # fmt: skip
    """Put an untrained adapter into the denoiser, in place; with text_encoder into the CLIPs too.

    alpha: updates count alpha / rank; None: in full. Returns its parameters, float32, which are then the only
    ones that require a gradient, those of text encoders last. The down projections are Gaussian, drawn from
    `seed`; the up projections are zero, so that nothing changes yet. group: one of the family's `layers`, to
    which the denoiser's part is confined. name: of the adapter; others in the denoiser stay active. dora:
    with a magnitude for each output (Liu et al. 2024).

    UsageError for text encoders of a family that has no adapter for them, and for a group without layers.
    """
    from peft import LoraConfig

    parts = {model.family.denoiser: _targets(model, group)}
    if text_encoder:
        if not model.family.lora_encoders:
            raise UsageError(f"a LoRA of a {model.family.pipeline} has no text encoder; leave it out")
        parts |= {part: list(CLIP_TARGETS) for part in model.family.lora_encoders}
    others = list(getattr(model.denoiser, "peft_config", None) or {})
    parameters: list[torch.nn.Parameter] = []
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another adapter, beside which this one is put
        torch.manual_seed(seed)
        for part, targets in parts.items():
            network = model.parts[part]
            network.requires_grad_(False)
            config = LoraConfig(
                r=rank, lora_alpha=rank if alpha is None else alpha, init_lora_weights="gaussian",
                target_modules=targets, use_dora=dora,
            )  # fmt: skip
            network.add_adapter(config, name)
            parameters += [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.data = p.data.float() if p.dtype in (torch.float16, torch.bfloat16) else p.data
    if others:
        use_lora(model, *others, name)
    return parameters


def _targets(model: TextToImage, group: str) -> list[str]:
    """The denoiser's layers of the group that get an adapter."""
    targets, part = list(model.family.lora_targets), model.family.layers[group]
    if not part:
        return targets
    ends = tuple(f".{target}" for target in targets)
    names = (name for name, _ in model.denoiser.named_modules() if part in f".{name}.")
    found = [name for name in names if name.endswith(ends)]
    if not found:
        raise UsageError(f"the denoiser has no {group} layer for a low-rank change; give train=all")
    return found


def use_lora(model: TextToImage, *names: str) -> None:
    """The denoiser predicts with these of its adapters, in whose weights it is then trained; () with none."""
    if not names:
        model.denoiser.disable_adapters()
        return
    model.denoiser.enable_adapters()
    model.denoiser.set_adapter(list(names))


def has_lora(model: TextToImage) -> bool:
    """Whether the denoiser has an adapter."""
    return bool(getattr(model.denoiser, "peft_config", None))


def load_lora(model: TextToImage, path: str | Path, *, strength: float = 1.0) -> TextToImage:
    """A copy of `model` with the LoRA of a file, a folder or a hub name added to its weights.

    LoRA, LoCon, LoHa, LoKr and DoRA are read, in the names of kohya, PEFT and diffusers, for the denoiser and
    the text encoders. safetensors only. strength: what the updates are multiplied by.

    Raises:
        UsageError: there is no such file.
        UnlikenessError: it is damaged, of another kind, or was made for another model.
        NotFiniteError: a weight is NaN or infinite.
    """
    file, tensors = find_lora(path), dict[str, Tensor]()
    try:
        tensors, settings = read_lora(file, (model.family.denoiser, *model.family.encoders))
        known, lost = updates(tensors, model)
        if lost or not known:
            raise UnreadableError(f"the model has no layer for {lost[0][:80] if lost else 'it'}")
        encoders = any(one.layer.part != model.family.denoiser for one in known)
        adapted = merged_copy(model, conditioner=encoders)
        for one in updates(tensors, adapted)[0]:
            _apply(one, settings or {}, strength)
    except (MemoryError, torch.OutOfMemoryError):  # no fault of the file
        raise
    except (ValueError, RuntimeError, LookupError, TypeError) as error:
        told = _of_another_family(tensors, model)
        told = told or f"cannot be used with this model ({reason(error)}); give one that was made for it"
        raise UnlikenessError(f"the LoRA {file} {told}") from error
    if not all_finite(tensors.values()):
        raise NotFiniteError(
            f"the LoRA {file} has weights that are not finite (NaN or infinity): they are damaged, or its "
            "training has diverged; fetch or make it again"
        )
    return adapted


def _of_another_family(tensors: Mapping[str, Tensor], model: TextToImage) -> str | None:
    made, own = made_for(tensors), of_model(model)
    if made is None or made == own:
        return None
    return f"was made for {made}, and the model is {own}; give one that was made for the model"


def _apply(update: Update, settings: Mapping[str, Any], strength: float) -> None:
    """Change the weight and the bias of the layer."""
    layer, roles = update.layer, update.roles
    scale = None if "alpha" in roles else _scale(update, settings)
    layer.set(weight=weight_after(layer.weight(), roles, scale=scale, strength=strength))
    if "bias" in roles:
        bias = layer.bias()
        if bias is None:
            raise UnreadableError(f"it has a bias for {layer.name}, which has none")
        layer.set(bias=bias_after(bias, roles, scale=scale, strength=strength))


def _scale(update: Update, settings: Mapping[str, Any]) -> float | None:
    """α / rank, or α / √rank, as a header of peft says it."""
    part, name = update.layer.part, update.layer.name
    alpha = settings.get(f"{part}.lora_alpha")
    for key, value in (settings.get(f"{part}.alpha_pattern") or {}).items():
        if name == key or name.endswith(f".{key}"):
            alpha = value
    if alpha is None or "down" not in update.roles:
        return None
    rank = update.roles["down"].shape[0]
    return float(alpha) / (rank**0.5 if settings.get(f"{part}.use_rslora") else rank)


def merged_copy(model: TextToImage, *, conditioner: bool = False) -> TextToImage:
    """`model.copy`, with the adapters of what is copied added to its weights: a base to train further."""
    copied = model.copy(conditioner=conditioner)
    for part in (copied.denoiser, *(copied.conditioner.encoders.values() if conditioner else ())):
        if getattr(part, "peft_config", None):
            merge(part)
    return copied


def adaptable_copy(model: TextToImage, *, conditioner: bool = False) -> TextToImage:
    """A copy to put an adapter into. It shares the weights of `model`, unless that has an adapter already,
    which is added to the copy's own. conditioner: the text encoders get one too."""
    if has_lora(model):
        return merged_copy(model, conditioner=conditioner)
    return model.copy(conditioner=conditioner, weights=False)


def remove_lora(model: TextToImage, name: str = "default") -> None:
    """Take the adapter of this name out of the denoiser, unmerged."""
    if list(model.denoiser.peft_config) == [name]:
        _remove(model.denoiser)
        return
    model.denoiser.delete_adapters(name)
    use_lora(model, *model.denoiser.peft_config)


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


def read_lora(file: Path, parts: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """A LoRA file's (tensors by name, settings by part and name or None), as diffusers names both.

    Only numbers and plain names of `parts` are kept of the settings. They come from the header, or from
    peft's adapter_config.json beside the file. UnreadableError for a damaged file, impossible names, empty
    tensors, ranks above 1024, and settings out of bounds.
    """
    tensors = read_safetensors(file)
    if len(tensors) > _MOST:
        raise UnreadableError(f"it has {len(tensors)} tensors, more than {_MOST}")
    for name, tensor in tensors.items():
        if _NAME.fullmatch(name) is None:
            raise UnreadableError(f"{name[:60]!r} is no name of a layer")
        real = tensor.is_floating_point() or tensor.numel() == 1  # a scale may be a whole number
        if not tensor.numel() or not real or tensor.ndim > 4:
            raise UnreadableError(f"{name[:60]} is no weight: {list(tensor.shape)} in {tensor.dtype}")
        if _rank(name, tensor) > _HIGHEST_RANK:
            raise UnreadableError(f"{name[:60]} is of rank {_rank(name, tensor)}, above {_HIGHEST_RANK}")
    text = read_header(file).get(_HEADER)
    if not text and file.name == PEFT_FILE and (file.parent / _PEFT_CONFIG).exists():
        said = read_json(file.parent / _PEFT_CONFIG, folder=file.parent)
        return tensors, _settings({f"{parts[0]}.{key}": one for key, one in dict(said).items()}, parts)
    return tensors, None if not text else _settings(parse_json(text), parts)


def _rank(name: str, tensor: Tensor) -> int:
    """That of one of the two factors of an update; 1 for anything else."""
    if tensor.ndim < 2:
        return 1
    if re.search(r"lora_A|lora_down|lora\.down|lora_linear_layer\.down|_w[12]_b$", name):
        return tensor.shape[0]
    up = r"lora_B|lora_up|lora\.up|lora_linear_layer\.up"
    return tensor.shape[1] if re.search(up, name) else 1


def _settings(said: Any, parts: Sequence[str]) -> dict[str, Any]:
    if not isinstance(said, Mapping):
        raise UnreadableError(f"its {_HEADER} is no object")
    found = {}
    for key, value in said.items():
        part, _, name = key.partition(".")
        if part in parts and name in _CHECKS and value is not None:
            if not _CHECKS[name](value):
                raise UnreadableError(f"its {_HEADER} has {key} = {str(value)[:60]}, which no LoRA has")
            found[key] = value
    return found


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value, 1, _HIGHEST_RANK)


def _is_scale(value: Any) -> bool:
    return _is_number(value, 0, 1e6)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _are_names(value: Any) -> bool:
    return _is_name(value) or (isinstance(value, list) and len(value) <= _MOST and all(map(_is_name, value)))


def _each_is(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(_is_name(name) and holds(one) for name, one in value.items())


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "r": _is_rank,
    "lora_alpha": _is_scale,
    "rank_pattern": lambda value: _each_is(value, _is_rank),
    "alpha_pattern": lambda value: _each_is(value, _is_scale),
    "target_modules": _are_names,
    "use_rslora": lambda value: isinstance(value, bool),
    "use_dora": lambda value: isinstance(value, bool),
    "lora_bias": lambda value: isinstance(value, bool),
}
"""The settings of peft's LoraConfig that decide what a LoRA computes -> whether a value can be one."""
