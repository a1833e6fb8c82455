"""Image encoders of transformers from a folder: CLIP, DINO and DINOv2, safetensors only.

The configuration names the kind and stays in bounds, and no library's loader sees the folder. A picture's
vector is CLIP's projected image embedding, or the class token after the last layer of DINO and DINOv2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.measure.views import View, read_view
from unlikeness.networks.configs import (
    ACTIVATION,
    CLIP_VISION,
    FLAG,
    SIDE,
    WIDTH,
    Rule,
    check,
    number,
    read_object,
    whole,
)  # fmt: skip

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["KINDS", "Tower", "kind_of", "load_tower"]

_VIT: dict[str, Rule] = {
    "hidden_size": WIDTH,
    "intermediate_size": whole(1, 1 << 16),
    "num_hidden_layers": whole(1, 64),
    "num_attention_heads": whole(1, 256),
    "hidden_act": ACTIVATION,
    "layer_norm_eps": number(0, 1),
    "image_size": SIDE,
    "patch_size": SIDE,
    "num_channels": whole(3, 3),
    "qkv_bias": FLAG,
}
_DINOV2: dict[str, Rule] = {
    **_VIT, "mlp_ratio": whole(1, 64), "layerscale_value": number(0, 1e3), "use_swiglu_ffn": FLAG,
}  # fmt: skip
_MOST_PATCHES = 4096


@dataclass(frozen=True)
class _Kind:
    """said: name in a message. inside: where the configuration lies in config.json."""

    said: str
    config: str
    network: str
    rules: Mapping[str, Rule]
    inside: str = ""


KINDS: dict[str, _Kind] = {
    "clip": _Kind(
        "CLIP", "CLIPVisionConfig", "CLIPVisionModelWithProjection", CLIP_VISION, "vision_config"
    ),
    "clip_vision_model": _Kind("CLIP", "CLIPVisionConfig", "CLIPVisionModelWithProjection", CLIP_VISION),
    "vit": _Kind("DINO", "ViTConfig", "ViTModel", _VIT),
    "dinov2": _Kind("DINOv2", "Dinov2Config", "Dinov2Model", _DINOV2),
}
"""By `model_type` in config.json."""


@dataclass(frozen=True)
class Tower:
    """An open encoder. digest: 16 digits of the SHA-256 of all that decides its vectors."""

    view: View
    vectors: Callable[[Tensor], Tensor]
    width: int
    digest: str


def kind_of(folder: Path) -> str:
    """The `model_type` of a folder, without torch. UsageError, naming the known ones, for another kind."""
    path = folder / "config.json"
    kind = read_object(path, folder).get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(dict.fromkeys(one.said for one in KINDS.values()))
        raise UsageError(
            f"{path} is of the kind {one_line(str(kind))[:60]!r}, which is no image encoder that is known "
            f"here; give one of {known}"
        )
    return kind


def load_tower(folder: Path, *, device: str | torch.device = "cpu") -> Tower:
    """The encoder in a folder as transformers writes it, in float32.

    UsageError for an unknown kind; UnlikenessError for what is damaged, missing or out of bounds.
    """
    import torch
    import transformers

    from unlikeness.networks.building import fill, quiet, sentence, with_floats
    from unlikeness.networks.weights import read_weights

    kind = KINDS[kind_of(folder)]
    settings = _settings(folder, kind)
    view = read_view(folder, square=kind.said != "CLIP")
    what = f"the encoder {folder}"
    with quiet(), sentence(what):
        with torch.device("meta"):
            config = getattr(transformers, kind.config)(**with_floats(settings), attn_implementation="sdpa")
            _check_sides(folder, view, config.patch_size, config.image_size, kind)
            further = {"add_pooling_layer": False} if kind.network == "ViTModel" else {}
            network: nn.Module = getattr(transformers, kind.network)(config, **further)
        tensors = _renamed(read_weights(folder, "", half=False, pickles=False), network.state_dict())
    digest = hashlib.sha256(repr((kind.said, sorted(settings.items()), view)).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].detach().contiguous().view(torch.uint8).reshape(-1).numpy().data)
    network = fill(network, tensors, what).float().to(device).requires_grad_(False)

    def vectors(pixels: Tensor) -> Tensor:
        with sentence(what):
            given = pixels.to(device)
            if kind.said == "CLIP":
                found: Any = network(pixel_values=given).image_embeds
            elif kind.network == "ViTModel":
                other = given.shape[-2:] != (config.image_size, config.image_size)
                found = network(pixel_values=given, interpolate_pos_encoding=other).last_hidden_state[:, 0]
            else:
                found = network(pixel_values=given).last_hidden_state[:, 0]
        made: Tensor = found
        return made

    with torch.no_grad():
        width = vectors(torch.zeros(1, 3, *view.sides)).shape[1]
    return Tower(view, vectors, width, digest.hexdigest()[:16])


def _settings(folder: Path, kind: _Kind) -> dict[str, Any]:
    """The settings of the image encoder, in bounds."""
    path = folder / "config.json"
    whole_config = read_object(path, folder)
    said: Any = whole_config
    if kind.inside:
        said = whole_config.get(kind.inside) or whole_config.get(f"{kind.inside}_dict")
        if not isinstance(said, dict):
            raise UnlikenessError(f"{path} has no {kind.inside}; fetch or save the model again")
    clean = {key: value for key, value in said.items() if key in kind.rules}
    if "projection_dim" in kind.rules and kind.inside and "projection_dim" in whole_config:
        clean["projection_dim"] = whole_config["projection_dim"]  # that of the whole CLIP counts
    check(clean, kind.rules, path)
    width, heads = clean.get("hidden_size", 768), clean.get("num_attention_heads", 12)
    if width % heads:
        raise UnlikenessError(
            f"{path} shares a hidden_size of {width} among {heads} heads, which does not divide it; fetch or "
            "save the model again"
        )
    return clean


def _check_sides(folder: Path, view: View, patch: int, own: int, kind: _Kind) -> None:
    """UnlikenessError if the picture that the network is given would be cut into very many patches.

    patch, own: the network's patch and picture [px].
    """
    height, width = view.sides
    if min(height, width) < patch or (height // patch) * (width // patch) > _MOST_PATCHES:
        raise UnlikenessError(
            f"{folder} cuts pictures of {width} × {height} px into patches of {patch} px, which must be from "
            f"1 to {_MOST_PATCHES}; fetch or save the model again"
        )
    if kind.said == "CLIP" and (height, width) != (own, own):
        raise UnlikenessError(
            f"{folder} prepares pictures of {width} × {height} px for a network that sees {own} px; "
            "fetch or save the model again"
        )


_OLD = (
    (re.compile(r"\.attention\.attention\.(query|key|value)\."), r".attention.\1_proj."),
    (re.compile(r"\.attention\.output\.dense\."), ".attention.o_proj."),
    (re.compile(r"\.intermediate\.dense\."), ".mlp.fc1."),
    (re.compile(r"\.output\.dense\."), ".mlp.fc2."),
)
_SHORT = {".query_proj.": ".q_proj.", ".key_proj.": ".k_proj.", ".value_proj.": ".v_proj."}


def _renamed(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that the network has, by its own names.

    transformers 5 calls the layers of a ViT otherwise than its files do; a classifier's file has a prefix.
    """
    found = {}
    for name, tensor in tensors.items():
        own = next((one for one in _names(name) if one in wanted), None)
        if own is not None:
            found[own] = tensor
    return found


def _names(name: str) -> Iterator[str]:
    yield name
    bare = re.sub(r"^(vit|dinov2|base_model|vision_tower)\.", "", name)
    yield bare
    new = bare
    for old, now in _OLD:
        new = old.sub(now, new)
    for old_word, now_word in _SHORT.items():
        new = new.replace(old_word, now_word)
    yield new
    yield new.replace("encoder.layer.", "layers.", 1)
    yield f"vision_model.{bare}"
    yield bare.removeprefix("vision_model.")
