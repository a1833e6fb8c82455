"""Whose update a tensor of a LoRA file is: its layer in the model, and its place in the formula.

Six ways of writing names are read: kohya's (`lora_unet_..._to_q.lora_down.weight`, with diffusers' or the
original names of layers), ComfyUI's (`diffusion_model....lora_up.weight`), PEFT's
(`base_model.model....lora_A.weight`), diffusers' (`unet....lora_A.weight` and `.lora.down.weight`),
diffusers' first one (`...processor.to_q_lora.down.weight`) and XLabs' for FLUX
(`...processor.qkv_lora1.down.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unlikeness.diffusion.families import FAMILIES, family_of
from unlikeness.diffusion.single_file.names import stacked, unet_names
from unlikeness.errors import UsageError
from unlikeness.foreign import UnreadableError

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["KOHYA", "Layer", "Update", "kohya_layers", "layers_of", "made_for", "of_model", "updates"]

KOHYA = "lora_unet_"
"""How the names of the denoiser's layers begin in kohya's files."""

_ROLES = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"\.lora_down\.weight$", "down"),
        (r"\.lora_up\.weight$", "up"),
        (r"\.lora_mid\.weight$", "mid"),
        (r"\.lora_A(?:\.\w+)?\.weight$", "down"),
        (r"\.lora_B(?:\.\w+)?\.weight$", "up"),
        (r"\.lora_B(?:\.\w+)?\.bias$", "bias"),
        (r"\.lora_magnitude_vector(?:\.\w+)?$", "magnitude"),
        (r"[._]lora(?:_linear_layer)?\.down\.weight$", "down"),
        (r"[._]lora(?:_linear_layer)?\.up\.weight$", "up"),
        (r"\.(hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))$", ""),
        (r"\.dora_scale$", "dora_scale"),
        (r"\.alpha$", "alpha"),
        (r"\.diff$", "diff"),
        (r"\.diff_b$", "bias"),
    )
)
"""The end of a tensor's name -> its place in the formula; "" keeps the name's own word."""

_UNKNOWN = {
    "oft": "OFT", "boft": "BOFT", "on_input": "IA³", "ia3_l": "IA³", "a1": "GLoRA", "b1": "GLoRA",
    "w_norm": "changes of norms", "b_norm": "changes of norms", "lora_embedding_A": "LoRA of embeddings",
    "lora_embedding_B": "LoRA of embeddings", "vera_lambda_d": "VeRA",
}  # fmt: skip
"""A word in a name -> what such files are called."""

_KOHYA = re.compile(r"(?:lora_(unet|transformer|te[1-9]?)|(lycoris))_(\w+)")

_XLABS = re.compile(r"_lora([12])\.(down|up)\.weight$")
"""The end of XLabs' names in the double blocks: 1 is the picture's side, 2 the prompt's."""

_COMFY = {"clip_l": 0, "clip_g": 1, "t5xxl": -1}
"""ComfyUI's names of text encoders, behind "text_encoders." -> which one of the family it is."""


@dataclass(frozen=True)
class Layer:
    """A layer as a file names it. part: "unet", "text_encoder", ...; name: as in the part's `named_modules`.

    modules: one, or several that are one layer in the original layout, their rows one below the other.
    swapped: the original has the halves of its rows the other way round (shift and scale).
    """

    part: str
    name: str
    modules: tuple[Any, ...]
    swapped: bool = False

    def weight(self) -> Tensor:
        """The weight in the layout of the file."""
        return self._turned(_joined([one.weight.data for one in self.modules]))

    def bias(self) -> Tensor | None:
        """The bias in the layout of the file; None if the layer has none."""
        biases = [getattr(one, "bias", None) for one in self.modules]
        found = [one.data for one in biases if one is not None]
        return self._turned(_joined(found)) if len(found) == len(biases) else None

    def set(self, *, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        """Write what `weight` and `bias` gave, changed."""
        rows = [len(one.weight) for one in self.modules]
        for name, new in (("weight", weight), ("bias", bias)):
            if new is not None:
                for module, own in zip(self.modules, torch.split(self._turned(new), rows), strict=True):
                    kept = getattr(module, name)
                    kept.data = own.to(kept.dtype).clone() if len(rows) > 1 else own.to(kept.dtype)

    def _turned(self, one: Tensor) -> Tensor:
        return torch.cat(one.chunk(2)[::-1]) if self.swapped else one


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


@dataclass
class Update:
    """What a file holds for one layer. roles: place in the formula -> tensor."""

    layer: Layer
    roles: dict[str, Tensor] = field(default_factory=dict)


class _Names:
    """All names that a part's layers may have in a file. originals: name -> the part's layers, as `stacked`
    gives them."""

    def __init__(self, part: str, network: nn.Module, originals: Mapping[str, tuple[str, ...]]) -> None:
        self.dotted: dict[str, Layer] = {}
        layers = {n: one for n, one in network.named_modules() if isinstance(_weight(one), Tensor)}
        for name, module in layers.items():
            layer = Layer(part, name, (module,))
            for one in (name, name.removeprefix("text_model."), f"text_model.{name}"):
                self.dotted.setdefault(one, layer)
        for name, inside in originals.items():
            modules = tuple(layers[one] for one in inside)
            swapped = name.endswith(".adaLN_modulation.1") and _halves(modules[0])
            self.dotted.setdefault(
                name,
                Layer(part, name if swapped or len(inside) > 1 else inside[0], modules, swapped),
            )
        self.joined = {name.replace(".", "_"): layer for name, layer in self.dotted.items()}

    def find(self, name: str) -> Layer | None:
        """The layer of this name, with dots or with underscores alone."""
        for one in (name, *_older(name)):
            if found := self.dotted.get(one) or self.joined.get(one):
                return found
        return None


def _weight(module: Any) -> Any:
    return getattr(module, "weight", None)


def _halves(module: Any) -> bool:
    """Whether a modulation is a shift and a scale alone. diffusers has the scale first, the original last."""
    return bool(len(module.weight) == 2 * module.weight.shape[1])


def _older(name: str) -> Iterable[str]:
    """The names of today for one that diffusers' attention processors gave."""
    plain = name.replace(".processor", "")
    yield plain
    yield f"{plain}.0"  # to_out
    yield re.sub(r"\.to_([qkv])$", r".\1_proj", plain)
    yield re.sub(r"\.to_out$", ".out_proj", plain)


def layers_of(model: TextToImage) -> dict[str, _Names]:
    """For each part that a LoRA may change, its layers by all their names."""
    originals = _originals(model)
    denoiser = _Names(model.family.denoiser, model.denoiser, {**originals, **_of_xlabs(originals)})
    encoders = {part: _Names(part, model.parts[part], {}) for part in model.family.encoders}
    return {model.family.denoiser: denoiser, **encoders}


def _originals(model: TextToImage) -> dict[str, tuple[str, ...]]:
    """The denoiser's layers by their names in the original layout."""
    network = model.denoiser
    names = [name for name, module in network.named_modules() if isinstance(_weight(module), Tensor)]
    depth, end = getattr(network.config, "layers_per_block", None), ".weight"
    if model.family.denoiser == "unet" and isinstance(depth, int):
        named = unet_names((f"{name}{end}" for name in names), depth)
        return {original.removesuffix(end): (name.removesuffix(end),) for name, original in named.items()}
    return stacked(model.family.original, names)


def _of_xlabs(originals: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """XLabs' names of FLUX's attention."""
    found = {}
    for name, layers in originals.items():
        if match := re.fullmatch(r"(double_blocks\.\d+\.)(img|txt)_attn\.(qkv|proj)", name):
            found[f"{match[1]}{match[3]}{1 if match[2] == 'img' else 2}"] = layers
        elif match := re.fullmatch(r"(single_blocks\.\d+\.)linear([12])", name):
            found[match[1] + ("qkv" if match[2] == "1" else "proj")] = layers[:3]
    return found


def kohya_layers(model: TextToImage, layers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """sd-scripts' names, without their beginning, of the original layers that `layers` of the denoiser are
    in -> all layers of each, in the order of their rows.

    It trains Stable Diffusion 1 and 2 in diffusers' layout and all others in the original one. UsageError for
    a family whose original names are not known here.
    """
    wanted = set(layers)
    if model.family.pipeline == "StableDiffusionPipeline":
        return {name.replace(".", "_"): (name,) for name in sorted(wanted)}
    known = _originals(model) if model.family.kohya_module else {}
    found = {
        name.replace(".", "_"): inside for name, inside in known.items() if not wanted.isdisjoint(inside)
    }
    if not wanted <= {one for inside in found.values() for one in inside}:
        raise UsageError(
            f"--lora-format kohya is not known for this kind of model ({of_model(model)}); leave it out"
        )
    return found


def updates(tensors: Mapping[str, Tensor], model: TextToImage) -> tuple[list[Update], list[str]]:
    """(the updates of a LoRA file, the names of tensors whose layer the model does not have).

    UnreadableError for a tensor that no formula here has: it would be dropped.
    """
    names = layers_of(model)
    found: dict[tuple[str, str], Update] = {}
    lost: list[str] = []
    for name, tensor in tensors.items():
        head, role = _role(name)
        layer = _layer(head, names, model)
        if layer is None:
            lost.append(name)
            continue
        update = found.setdefault((layer.part, layer.name), Update(layer))
        if role in update.roles:
            raise UnreadableError(f"{name[:80]} is there twice for one layer")
        update.roles[role] = tensor
    return list(found.values()), lost


def _role(name: str) -> tuple[str, str]:
    name = _XLABS.sub(r"\1_lora.\2.weight", name)
    for pattern, role in _ROLES:
        if match := pattern.search(name):
            return name[: match.start()], role or match[1]
    for word in re.split(r"[.]", name)[1:]:
        for known, said in _UNKNOWN.items():
            if word == known or word.startswith(f"{known}_"):
                raise UnreadableError(f"it is of the kind {said} ({name[:80]}), which is not read")
    raise UnreadableError(f"{name[:80]} is no tensor of a LoRA, DoRA, LoCon, LoHa or LoKr")


def _layer(head: str, names: Mapping[str, _Names], model: TextToImage) -> Layer | None:
    denoiser, encoders = model.family.denoiser, model.family.encoders
    if match := _KOHYA.fullmatch(head):
        which, generic, rest = match.groups()
        if generic or which in ("unet", "transformer"):
            return names[denoiser].find(rest)
        number = int(which[2:] or 1)
        return names[encoders[number - 1]].find(rest) if number <= len(encoders) else None
    for start in ("base_model.model.", "model.", "diffusion_model."):
        head = head.removeprefix(start)
    if match := re.match(r"text_encoders\.(clip_l|clip_g|t5xxl)\.transformer\.", head):
        which = _COMFY[match[1]]
        return names[encoders[which]].find(head[match.end() :]) if which < len(encoders) else None
    part, _, rest = head.partition(".")
    if part in names:
        return names[part].find(rest)
    return None if part.startswith("text_encoder") else names[denoiser].find(head)


def made_for(tensors: Mapping[str, Tensor]) -> str | None:
    """The family that a LoRA file was made for, as its names and widths show; None if they do not."""
    families = [family_of(pipeline) for pipeline in reversed(FAMILIES)]
    for family in families:
        if family.lora_names and any(re.search(family.lora_names, name) for name in tensors):
            return family.title
    widths = {
        tensor.shape[1]
        for name, tensor in tensors.items()
        if re.search(r"attn2[._](processor\.)?to_[kv]", name) and re.search(r"down|lora_A", name)
    }
    kinds = {width: kind for family in families for width, kind in family.kinds.items()}
    return kinds.get(widths.pop()) if len(widths) == 1 else None


def of_model(model: TextToImage) -> str:
    """The family of a model, in the same words."""
    width = getattr(model.denoiser, "config", {}).get("cross_attention_dim") or 0
    return model.family.kinds.get(width, model.family.title)
