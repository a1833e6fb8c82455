"""The names of a denoiser's layers in the original layouts of Stable Diffusion, FLUX and Z-Image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["FLUX", "FLUX_NORMS", "SD3", "Z_IMAGE", "stacked", "unet_names"]

FLUX: Mapping[str, tuple[str, ...]] = {
    "double_blocks.{}.img_mod.lin": ("transformer_blocks.{}.norm1.linear",),
    "double_blocks.{}.txt_mod.lin": ("transformer_blocks.{}.norm1_context.linear",),
    "double_blocks.{}.img_attn.qkv": tuple(f"transformer_blocks.{{}}.attn.to_{x}" for x in "qkv"),
    "double_blocks.{}.txt_attn.qkv": tuple(f"transformer_blocks.{{}}.attn.add_{x}_proj" for x in "qkv"),
    "double_blocks.{}.img_attn.proj": ("transformer_blocks.{}.attn.to_out.0",),
    "double_blocks.{}.txt_attn.proj": ("transformer_blocks.{}.attn.to_add_out",),
    "double_blocks.{}.img_mlp.0": ("transformer_blocks.{}.ff.net.0.proj",),
    "double_blocks.{}.img_mlp.2": ("transformer_blocks.{}.ff.net.2",),
    "double_blocks.{}.txt_mlp.0": ("transformer_blocks.{}.ff_context.net.0.proj",),
    "double_blocks.{}.txt_mlp.2": ("transformer_blocks.{}.ff_context.net.2",),
    "single_blocks.{}.modulation.lin": ("single_transformer_blocks.{}.norm.linear",),
    "single_blocks.{}.linear1": (
        *(f"single_transformer_blocks.{{}}.attn.to_{x}" for x in "qkv"),
        "single_transformer_blocks.{}.proj_mlp",
    ),
    "single_blocks.{}.linear2": ("single_transformer_blocks.{}.proj_out",),
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
"""FLUX.1's original name of a layer -> diffusers' layers whose rows it holds, in order. {}: a number."""

FLUX_NORMS: Mapping[str, tuple[str, ...]] = {
    "double_blocks.{}.img_attn.norm.query_norm": ("transformer_blocks.{}.attn.norm_q",),
    "double_blocks.{}.img_attn.norm.key_norm": ("transformer_blocks.{}.attn.norm_k",),
    "double_blocks.{}.txt_attn.norm.query_norm": ("transformer_blocks.{}.attn.norm_added_q",),
    "double_blocks.{}.txt_attn.norm.key_norm": ("transformer_blocks.{}.attn.norm_added_k",),
    "single_blocks.{}.norm.query_norm": ("single_transformer_blocks.{}.attn.norm_q",),
    "single_blocks.{}.norm.key_norm": ("single_transformer_blocks.{}.attn.norm_k",),
}
"""Its further layers, whose weights are called `scale` there. No LoRA has them."""

SD3: Mapping[str, tuple[str, ...]] = {
    "joint_blocks.{}.x_block.adaLN_modulation.1": ("transformer_blocks.{}.norm1.linear",),
    "joint_blocks.{}.context_block.adaLN_modulation.1": ("transformer_blocks.{}.norm1_context.linear",),
    "joint_blocks.{}.x_block.attn.qkv": tuple(f"transformer_blocks.{{}}.attn.to_{x}" for x in "qkv"),
    "joint_blocks.{}.x_block.attn2.qkv": tuple(f"transformer_blocks.{{}}.attn2.to_{x}" for x in "qkv"),
    "joint_blocks.{}.context_block.attn.qkv": tuple(
        f"transformer_blocks.{{}}.attn.add_{x}_proj" for x in "qkv"
    ),
    "joint_blocks.{}.x_block.attn.proj": ("transformer_blocks.{}.attn.to_out.0",),
    "joint_blocks.{}.x_block.attn2.proj": ("transformer_blocks.{}.attn2.to_out.0",),
    "joint_blocks.{}.context_block.attn.proj": ("transformer_blocks.{}.attn.to_add_out",),
    "joint_blocks.{}.x_block.mlp.fc1": ("transformer_blocks.{}.ff.net.0.proj",),
    "joint_blocks.{}.x_block.mlp.fc2": ("transformer_blocks.{}.ff.net.2",),
    "joint_blocks.{}.context_block.mlp.fc1": ("transformer_blocks.{}.ff_context.net.0.proj",),
    "joint_blocks.{}.context_block.mlp.fc2": ("transformer_blocks.{}.ff_context.net.2",),
    "x_embedder.proj": ("pos_embed.proj",),
    "context_embedder": ("context_embedder",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
"""The same of Stable Diffusion 3 and 3.5."""

Z_IMAGE: Mapping[str, tuple[str, ...]] = {
    f"{blocks}.{{}}.attention.{original}": tuple(f"{blocks}.{{}}.attention.{one}" for one in layers)
    for blocks in ("layers", "noise_refiner", "context_refiner")
    for original, layers in {"qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)}.items()
}
"""Those of Z-Image's layers that have other names in the original."""

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}


def unet_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """diffusers' name of a tensor -> the original one, without its prefix. Other tensors are left out.

    layers: layers in a block (`layers_per_block`). The layout is that of CompVis/stable-diffusion,
    `openaimodel.py`.
    """
    names, found = list(names), {}
    for name in names:
        part, _, end = name.rpartition(".")
        if part in _UNET_ENDS:
            found[name] = f"{_UNET_ENDS[part]}.{end}"
            continue
        match = re.fullmatch(r"(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)", name)
        if match is None:
            continue
        side, block, kind, index, rest = match.groups()
        if kind == "resnets":
            head, _, tail = rest.partition(".")
            if head not in _RESNET:
                continue
            rest = f"{_RESNET[head]}.{tail}"
        if side == "mid_block":
            found[name] = f"middle_block.{_MIDDLE[f'{kind}.{index}']}.{rest}"
            continue
        start = int(block) * (layers + 1)
        if side == "down_blocks":
            place = {"resnets": f"{start + 1 + int(index)}.0", "attentions": f"{start + 1 + int(index)}.1",
                     "downsamplers": f"{start + layers + 1}.0"}[kind]  # fmt: skip
            found[name] = (
                f"input_blocks.{place}.{rest.replace('conv.', 'op.') if 'samplers' in kind else rest}"
            )
        else:
            attends = any(other.startswith(f"up_blocks.{block}.attentions.") for other in names)
            place = {"resnets": f"{start + int(index)}.0", "attentions": f"{start + int(index)}.1",
                     "upsamplers": f"{start + layers}.{2 if attends else 1}"}[kind]  # fmt: skip
            found[name] = f"output_blocks.{place}.{rest}"
    return found


def stacked(table: Mapping[str, tuple[str, ...]], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The original layers of a network: name -> diffusers' layers whose rows it holds. Those of which the
    network lacks a layer are left out.

    table: `FLUX`, `SD3`, `Z_IMAGE`. names: all names of the network's layers.
    """
    known, found = set(names), {}
    numbers = sorted({word for name in known for word in name.split(".") if word.isdecimal()})
    for original, layers in table.items():
        for number in numbers if "{}" in original else [""]:
            here = tuple(layer.format(number) for layer in layers)
            if known.issuperset(here):
                found[original.format(number)] = here
    return found
