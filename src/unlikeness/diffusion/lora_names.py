"""Whose update a tensor of a LoRA file is: its layer in the model, and its place in the formula.

Five ways of writing names are read: kohya's (`lora_unet_..._to_q.lora_down.weight`, with diffusers' or the
original names of layers), PEFT's (`base_model.model....lora_A.weight`), diffusers' (`unet....lora_A.weight`
and `.lora.down.weight`), and diffusers' first one (`...processor.to_q_lora.down.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unlikeness.diffusion.single_file.names import unet_names
from unlikeness.errors import UsageError
from unlikeness.foreign import UnreadableError

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["KOHYA", "Layer", "Update", "kohya_name", "layers_of", "made_for", "of_model", "updates"]

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


@dataclass(frozen=True)
class Layer:
    """A layer of the model. part: "unet", "text_encoder", ...; name: as in the part's `named_modules`."""

    part: str
    name: str
    module: Any


@dataclass
class Update:
    """What a file holds for one layer. roles: place in the formula -> tensor."""

    layer: Layer
    roles: dict[str, Tensor] = field(default_factory=dict)


class _Names:
    """All names that a part's layers may have in a file."""

    def __init__(self, part: str, network: nn.Module, originals: Mapping[str, str]) -> None:
        self.dotted: dict[str, Layer] = {}
        for name, module in network.named_modules():
            if isinstance(getattr(module, "weight", None), Tensor):
                layer = Layer(part, name, module)
                for one in {
                    name,
                    name.removeprefix("text_model."),
                    f"text_model.{name}",
                    originals.get(name),
                }:
                    if one:
                        self.dotted.setdefault(one, layer)
        self.joined = {name.replace(".", "_"): layer for name, layer in self.dotted.items()}

    def find(self, name: str) -> Layer | None:
        """The layer of this name, with dots or with underscores alone."""
        for one in (name, *_older(name)):
            if found := self.dotted.get(one) or self.joined.get(one):
                return found
        return None


def _older(name: str) -> Iterable[str]:
    """The names of today for one that diffusers' attention processors gave."""
    plain = name.replace(".processor", "")
    yield plain
    yield f"{plain}.0"  # to_out
    yield re.sub(r"\.to_([qkv])$", r".\1_proj", plain)
    yield re.sub(r"\.to_out$", ".out_proj", plain)


def layers_of(model: TextToImage) -> dict[str, _Names]:
    """For each part that a LoRA may change, its layers by all their names."""
    found = {}
    for part in (model.family.denoiser, *model.family.encoders):
        network, originals = model.parts[part], {}
        layers = getattr(getattr(network, "config", None), "layers_per_block", None)
        if part == "unet" and isinstance(layers, int):
            named = unet_names((f"{name}.weight" for name, _ in network.named_modules()), layers)
            cut = len(".weight")
            originals = {name[:-cut]: original[:-cut] for name, original in named.items()}
        found[part] = _Names(part, network, originals)
    return found


def kohya_name(model: TextToImage, layer: str) -> str:
    """sd-scripts' name of one of the denoiser's layers, without its beginning.

    It trains Stable Diffusion 1 and 2 in diffusers' layout and Stable Diffusion XL in the original one.
    UsageError for a family without a U-Net, whose layers it splits otherwise.
    """
    network = model.denoiser
    if model.family.denoiser != "unet":
        raise UsageError(
            f"--lora-format kohya is for U-Nets, and the model is {of_model(model)}; leave it out"
        )
    if model.family.pipeline != "StableDiffusionXLPipeline":
        return layer.replace(".", "_")
    names = unet_names(
        [f"{name}.weight" for name, _ in network.named_modules()], network.config.layers_per_block
    )
    return names[f"{layer}.weight"].removesuffix(".weight").replace(".", "_")


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
    part, _, rest = head.partition(".")
    if part in names:
        return names[part].find(rest)
    return None if part.startswith("text_encoder") else names[denoiser].find(head)


def made_for(tensors: Mapping[str, Tensor]) -> str | None:
    """The family that a LoRA file was made for, as its names and widths show; None if they do not."""
    for said, pattern in (
        ("FLUX", r"double_blocks|single_blocks|single_transformer_blocks"),
        ("Stable Diffusion 3", r"joint_blocks|add_q_proj"),
    ):
        if any(re.search(pattern, name) for name in tensors):
            return said
    widths = {
        tensor.shape[1]
        for name, tensor in tensors.items()
        if re.search(r"attn2[._](processor\.)?to_[kv]", name) and re.search(r"down|lora_A", name)
    }
    if any(name.startswith(("lora_te2_", "text_encoder_2.")) for name in tensors):
        return _WIDTHS[2048]
    return _WIDTHS.get(widths.pop()) if len(widths) == 1 else None


def of_model(model: TextToImage) -> str:
    """The family of a model, in the same words where it has a published width."""
    config = getattr(model.denoiser, "config", {})
    return _WIDTHS.get(config.get("cross_attention_dim") or 0, f"a {model.family.pipeline}")


_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
"""Width of the prompt's tokens -> the family."""
