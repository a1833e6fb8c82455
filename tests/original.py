"""Models in one file, in the layout of their authors: what diffusers' conversion is the inverse of.

Written from the published layouts (CompVis/stable-diffusion, Stability-AI/generative-models).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unlikeness.diffusion.single_file.names import unet_names

__all__ = ["clip_names", "open_clip", "original", "vae_names", "write_single"]

_LAYER = {
    "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


def vae_names(names: Mapping[str, Any], blocks: int) -> dict[str, str]:
    """diffusers' name -> the original one. blocks: down blocks of the encoder."""
    found = {}
    for name in names:
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(
            r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{blocks - 1 - int(m[1])}.block.{m[2]}", new
        )
        new = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", new
        )
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if "mid_block.attentions.0" in new:
            new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            new = new.replace("to_out.0", "proj_out").replace("to_", "")
        found[name] = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    return found


def clip_names(names: Mapping[str, Any]) -> dict[str, str]:
    """As `vae_names`."""
    return {name: name if name.startswith("text_model.") else f"text_model.{name}" for name in names}


def open_clip(state: Mapping[str, Tensor], *, further_layer: bool = True) -> dict[str, Tensor]:
    """A CLIP's text encoder as open_clip stores it: one matrix for query, key and value.

    further_layer: with a last layer that diffusers leaves out, as in Stable Diffusion 2.
    """
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    found = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    width = found["token_embedding.weight"].shape[1]
    found["text_projection"] = state.get("text_projection.weight", torch.eye(width)).T.contiguous()
    layers = 1 + max(int(m[1]) for name in state if (m := re.match(r"encoder\.layers\.(\d+)", name)))
    for i in range(layers + further_layer):
        old, new = f"encoder.layers.{min(i, layers - 1)}", f"transformer.resblocks.{i}"
        for end in ("weight", "bias"):
            found[f"{new}.attn.in_proj_{end}"] = torch.cat(
                [state[f"{old}.self_attn.{one}_proj.{end}"] for one in "qkv"]
            )
            for one, other in _LAYER.items():
                found[f"{new}.{other}.{end}"] = state[f"{old}.{one}.{end}"]
    return found


def original(parts: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
    """All tensors of a model under the names of `kind`: sd1, sd2 or sdxl. parts: diffusers' objects."""
    unet, vae = parts["unet"], parts["vae"]
    names = unet_names(unet.state_dict(), unet.config.layers_per_block)
    found = {f"model.diffusion_model.{names[name]}": one for name, one in unet.state_dict().items()}
    names = vae_names(vae.state_dict(), len(vae.config.down_block_types))
    for name, tensor in vae.state_dict().items():
        conv = "mid.attn_1" in names[name] and tensor.ndim == 2
        found[f"first_stage_model.{names[name]}"] = tensor[..., None, None] if conv else tensor
    text = parts["text_encoder"].state_dict()
    if kind == "sd2":
        return found | {f"cond_stage_model.model.{name}": one for name, one in open_clip(text).items()}
    start = "conditioner.embedders.0.transformer." if kind == "sdxl" else "cond_stage_model.transformer."
    found |= {f"{start}{new}": text[name] for name, new in clip_names(text).items()}
    if kind == "sdxl":
        second = open_clip(parts["text_encoder_2"].state_dict(), further_layer=False)
        found |= {f"conditioner.embedders.1.model.{name}": one for name, one in second.items()}
    else:
        found["alphas_cumprod"] = torch.linspace(1, 0, 10)
    return found


def write_single(
    model: Any, file: Path, kind: str, *, dtype: torch.dtype = torch.float32, **metadata: str
) -> Path:
    """Write a model's `parts` to `file` in the original layout of `kind`; a .ckpt as a pickle."""
    tensors = {name: one.to(dtype).contiguous().clone() for name, one in original(model.parts, kind).items()}
    if file.suffix == ".ckpt":
        torch.save({"state_dict": tensors, "global_step": 3}, file)
    else:
        save_file(tensors, file, {"format": "pt", **metadata})
    return file
