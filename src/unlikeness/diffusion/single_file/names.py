"""The names of a U-Net's tensors in the original layout of Stable Diffusion."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["unet_names"]

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
