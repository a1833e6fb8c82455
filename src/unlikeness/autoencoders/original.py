"""Whole autoencoders as single files: in the original layouts, or diffusers' weights without a configuration.

The names and shapes of the tensors give the configuration. What they do not give is the scale of the latents,
by which models with the same layers differ; the file's name decides, see `_SCALES`. A scale changes all
latents alike, so that distances between them keep their proportions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unlikeness.autoencoders.rules import RULES
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.building import build, fill, sentence
from unlikeness.networks.configs import WIDTH, check

__all__ = ["autoencoder_of"]

_PREFIXES = ("first_stage_model.", "vae.")
"""Of the autoencoder in a checkpoint of a whole model."""

_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "bn.", "conv1.", "conv2.")

_SCALES: dict[str, tuple[int, float, float]] = {
    "sd1": (4, 0.18215, 0.0), "sdxl": (4, 0.13025, 0.0),
    "flux1": (16, 0.3611, 0.1159), "sd3": (16, 1.5305, 0.0609),
}  # fmt: skip
"""Name -> channels, scaling factor and shift of the published configurations."""

_HINTS = {"sdxl": re.compile(r"xl", re.IGNORECASE), "sd3": re.compile(r"sd_?3|diffusion.?3", re.IGNORECASE)}
"""Name -> pattern of file names. Without one: sd1 with 4 channels, flux1 with 16."""

_MOST = 8
"""Bound on levels of resolution; published ones have 4."""

_DOWN = re.compile(r"encoder\.down_blocks\.(\d)\.resnets\.(\d{1,2})\.conv1\.weight")
_UP = re.compile(r"decoder\.up_blocks\.(\d)\.resnets\.0\.conv1\.weight")


def autoencoder_of(tensors: Mapping[str, Tensor], file: Path, name: str | None = None) -> Any:
    """The network with these weights, in eval mode.

    Args:
        tensors: of the file: an autoencoder alone, or a checkpoint of a whole model with one.
        file: for messages and the scale.
        name: of the known autoencoder, if the file stands for one.

    Raises:
        UsageError: the file holds no autoencoder of a known layout.
        UnlikenessError: it is damaged, or out of bounds.
    """
    what = f"the autoencoder {file}"
    own = _own(tensors)
    if "encoder.conv1.weight" in own and "conv2.weight" in own:
        return _film(own, what, file)
    named = _converted(own, what)
    if not any(map(_DOWN.fullmatch, named)):
        raise UsageError(f"{file} holds no autoencoder whose layout is known; give its folder of diffusers")
    config = _config(named, file, name)
    kind = "AutoencoderKLFlux2" if "bn.running_mean" in named else "AutoencoderKL"
    check(config, RULES["AutoencoderKL"], file)
    return fill(build(kind, config, what), named, what)


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder's tensors under their own names."""
    prefix = next((one for one in _PREFIXES if any(name.startswith(one) for name in tensors)), "")
    found = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    for side, part in (("encoder", "quant_conv"), ("decoder", "post_quant_conv")):  # FLUX.2 keeps them there
        for end in ("weight", "bias"):
            if (tensor := found.pop(f"{side}.{part}.{end}", None)) is not None:
                found[f"{part}.{end}"] = tensor
    return {name: tensor for name, tensor in found.items() if name.startswith(_PARTS)}


def _converted(own: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Under diffusers' names."""
    levels = {int(m[1]) for name in own if (m := re.match(r"encoder\.down\.(\d)\.", name))}
    if not levels:
        return dict(own)
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    blocks = [""] * min(len(levels), _MOST)
    with sentence(what):
        named = convert_ldm_vae_checkpoint(dict(own), {"down_block_types": blocks, "up_block_types": blocks})
    return {**named, **{name: tensor for name, tensor in own.items() if name.startswith("bn.")}}


def _config(named: Mapping[str, Tensor], file: Path, name: str | None) -> dict[str, Any]:
    """The configuration that these tensors need. Whether they fit it, `fill` checks."""
    down, ups = ([m for m in map(one.fullmatch, named) if m] for one in (_DOWN, _UP))
    for m in (*down, *ups):
        if named[m[0]].ndim != 4:
            raise UnlikenessError(
                f"the autoencoder {file} has {m[0]} of shape {list(named[m[0]].shape)}, which is no "
                "convolution; fetch it again"
            )
    widths = {int(m[1]): named[m[0]].shape[0] for m in sorted(down, key=lambda m: (m[1], -int(m[2])))}
    up = {int(m[1]): named[m[0]].shape[0] for m in ups}
    last = named.get("encoder.conv_out.weight")
    if last is None or last.ndim != 4 or len(widths) > _MOST:
        raise UnlikenessError(f"the autoencoder {file} lacks its last layer; fetch it again")
    channels, levels = last.shape[0] // 2, len(widths)
    wide, narrow = ([side[i] for i in sorted(side)] for side in (widths, up))
    config: dict[str, Any] = {
        "in_channels": 3, "out_channels": 3, "latent_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": wide, "layers_per_block": len({m[2] for m in down}),
        "norm_num_groups": 32,
        "use_quant_conv": "quant_conv.weight" in named,
        "use_post_quant_conv": "post_quant_conv.weight" in named,
        "mid_block_add_attention": any("mid_block.attentions" in one for one in named),
    }  # fmt: skip
    if "bn.running_mean" in named:
        other = [] if narrow[::-1] == wide else [("decoder_block_out_channels", narrow[::-1])]
        return {**config, **dict(other)}
    _, scale, shift = _SCALES[_scale_of(channels, file, name)]
    return {**config, "scaling_factor": scale, "shift_factor": shift or None}


def _scale_of(channels: int, file: Path, name: str | None) -> str:
    plain = (name or "").partition(":")[0]
    if plain in _SCALES:
        return plain
    fitting = [one for one, (count, _, _) in _SCALES.items() if count == channels] or ["sd1"]
    return next((one for one in fitting if one in _HINTS and _HINTS[one].search(file.stem)), fitting[0])


def _film(own: Mapping[str, Tensor], what: str, file: Path) -> Any:
    """Wan 2.1's and Qwen-Image's, which see a picture as a film of one frame."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    first, last = own["encoder.conv1.weight"], own["conv2.weight"]
    # Their means and deviations are for 16 channels.
    if not first.ndim or not last.ndim or last.shape[0] != 16:
        raise UsageError(f"{file} is no autoencoder of Wan 2.1 or Qwen-Image; give its folder of diffusers")
    config = {"base_dim": first.shape[0]}
    check(config, {"base_dim": WIDTH}, file)
    with sentence(what):
        named = convert_wan_vae_to_diffusers(dict(own))
    return fill(build("AutoencoderKLQwenImage", config, what), named, what)
