"""Models in one file, in the layout of their authors: what diffusers' conversion is the inverse of.

Written from the published layouts (CompVis/stable-diffusion, Stability-AI/generative-models,
Stability-AI/sd3.5). That of FLUX.1 is checked against diffusers' conversion in test_single_file_flow.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unlikeness.diffusion.single_file.names import FLUX, FLUX_NORMS, stacked, unet_names

__all__ = [
    "clip_names", "flux_transformer", "open_clip", "original", "sd3_transformer", "vae_names", "write_single",
]  # fmt: skip

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


def clip_names(names: Iterable[str]) -> dict[str, str]:
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
    """All tensors of a model under the names of `kind`: sd1, sd2, sdxl, sd3 or flux. parts: diffusers'
    objects."""
    vae = parts["vae"]
    if kind in ("sd3", "flux"):
        inside = (sd3_transformer if kind == "sd3" else flux_transformer)(parts["transformer"])
    else:
        names = unet_names(parts["unet"].state_dict(), parts["unet"].config.layers_per_block)
        inside = {names[name]: one for name, one in parts["unet"].state_dict().items()}
    found = {f"model.diffusion_model.{name}": one for name, one in inside.items()}
    names = vae_names(vae.state_dict(), len(vae.config.down_block_types))
    for name, tensor in vae.state_dict().items():
        conv = "mid.attn_1" in names[name] and tensor.ndim == 2
        found[f"first_stage_model.{names[name]}"] = tensor[..., None, None] if conv else tensor
    text = parts["text_encoder"].state_dict()
    if kind in ("sd3", "flux"):
        return found | _flow_encoders(parts, kind)
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


_SD3_ENDS = {
    "pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "proj_out": "final_layer.linear", "norm_out.linear": "final_layer.adaLN_modulation.1",
}  # fmt: skip
_SD3_LAYERS = {
    "norm1.linear": "x_block.adaLN_modulation.1", "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1", "ff_context.net.2": "context_block.mlp.fc2",
    "attn.norm_q": "x_block.attn.ln_q", "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q", "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q", "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
}  # fmt: skip
_SD3_QKV = {
    "attn.to_q": "x_block.attn.qkv", "attn.add_q_proj": "context_block.attn.qkv",
    "attn2.to_q": "x_block.attn2.qkv",
}  # fmt: skip


def sd3_transformer(transformer: Any) -> dict[str, Tensor]:
    """The transformer of a Stable Diffusion 3 or 3.5, without a prefix."""
    state, found = transformer.state_dict(), {}
    last = f"transformer_blocks.{transformer.config.num_layers - 1}.norm1_context."
    for name, tensor in state.items():
        part, _, end = name.rpartition(".")
        block = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", part)
        if name.startswith(("norm_out.", last)):
            tensor = torch.cat(tensor.chunk(2)[::-1])
        if name == "pos_embed.pos_embed":
            found["pos_embed"] = tensor
        elif block is None:
            found[f"{_SD3_ENDS[part]}.{end}"] = tensor
        elif block[2] in _SD3_LAYERS:
            found[f"joint_blocks.{block[1]}.{_SD3_LAYERS[block[2]]}.{end}"] = tensor
        elif block[2] in _SD3_QKV:
            three = [state[re.sub("(to|add)_q", rf"\1_{one}", name)] for one in "qkv"]
            found[f"joint_blocks.{block[1]}.{_SD3_QKV[block[2]]}.{end}"] = torch.cat(three)
    return found


def flux_transformer(transformer: Any) -> dict[str, Tensor]:
    """The transformer of a FLUX.1, without a prefix."""
    state, found = transformer.state_dict(), {}
    layers = {name.rpartition(".")[0] for name in state}
    for own, parts in stacked({**FLUX, **FLUX_NORMS}, layers).items():
        for end in ("weight", "bias"):
            if f"{parts[0]}.{end}" in state:
                rows = torch.cat([state[f"{part}.{end}"] for part in parts])
                rows = torch.cat(rows.chunk(2)[::-1]) if parts == ("norm_out.linear",) else rows
                found[f"{own}.{'scale' if own.endswith('_norm') else end}"] = rows
    return found


def _flow_encoders(parts: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
    places = ("clip_l", "clip_g", "t5xxl") if kind == "sd3" else ("clip_l", "t5xxl")
    found: dict[str, Tensor] = {}
    for part, place in zip(("text_encoder", "text_encoder_2", "text_encoder_3"), places, strict=False):
        if part in parts:
            state = parts[part].state_dict()
            names = {name: name for name in state}
            if "t5" not in place:
                names = {name: name if "projection" in name else clip_names([name])[name] for name in state}
            state.pop("encoder.embed_tokens.weight", None)  # T5's, the same as shared.weight
            found |= {f"text_encoders.{place}.transformer.{names[name]}": one for name, one in state.items()}
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
