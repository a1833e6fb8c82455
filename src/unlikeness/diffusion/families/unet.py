"""What families with a U-Net share: Stable Diffusion 1.x and 2.x, and Stable Diffusion XL."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.autoencoders.opening import RULES as AUTOENCODERS
from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.families import Defaults, Family
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.configs import (
    ACTIVATION,
    FLAG,
    LAYERS,
    NULL,
    SIDE,
    WIDTH,
    Rule,
    each,
    number,
    one_of,
    whole,
)

__all__ = ["UNET", "UNetFamily", "absent", "padded", "words"]


def absent(of: str) -> Rule:
    """Of a setting that a kind of model does not have."""
    return Rule(f"null, as in every {of}", lambda v: v in (None, False))


_USUAL = Rule("as in every Stable Diffusion", lambda v: v in (None, "default", "positional"))
_PAIR = Rule(
    "a pair of equal sides",
    lambda v: isinstance(v, list) and len(v) == 2 and v[0] == v[1] and SIDE.holds(v[0]),
)

UNET: dict[str, Rule] = {
    "sample_size": SIDE | _PAIR,
    "in_channels": whole(1, 256),
    "out_channels": whole(1, 256),
    "center_input_sample": FLAG,
    "flip_sin_to_cos": FLAG,
    "freq_shift": number(-1, 1),
    "down_block_types": each(one_of("DownBlock2D", "CrossAttnDownBlock2D")),
    "up_block_types": each(one_of("UpBlock2D", "CrossAttnUpBlock2D")),
    "mid_block_type": one_of("UNetMidBlock2DCrossAttn", "UNetMidBlock2D") | NULL,
    "block_out_channels": each(WIDTH),
    "layers_per_block": LAYERS | each(LAYERS),
    "transformer_layers_per_block": LAYERS | each(LAYERS | each(LAYERS)),
    "reverse_transformer_layers_per_block": NULL | each(LAYERS | each(LAYERS)),
    "cross_attention_dim": WIDTH | each(WIDTH),
    "attention_head_dim": WIDTH | each(WIDTH),
    "num_attention_heads": NULL | WIDTH | each(WIDTH),
    "norm_num_groups": NULL | WIDTH,
    "norm_eps": number(0, 1),
    "act_fn": ACTIVATION,
    "dropout": number(0, 1),
    "downsample_padding": whole(0, 8),
    "mid_block_scale_factor": number(1e-6, 1e6),
    "resnet_out_scale_factor": number(1e-6, 1e6),
    "only_cross_attention": FLAG | each(FLAG),
    "dual_cross_attention": FLAG,
    "use_linear_projection": FLAG,
    "upcast_attention": FLAG | NULL,
    "conv_in_kernel": whole(1, 15),
    "conv_out_kernel": whole(1, 15),
    "time_embedding_dim": NULL | WIDTH,
    "time_cond_proj_dim": NULL | WIDTH,
    "resnet_time_scale_shift": one_of("default", "scale_shift"),
    "time_embedding_type": _USUAL,
    "attention_type": _USUAL,
    "class_embed_type": absent("Stable Diffusion"),
    "num_class_embeds": absent("Stable Diffusion"),
    "class_embeddings_concat": absent("Stable Diffusion"),
    "encoder_hid_dim": absent("Stable Diffusion"),
    "encoder_hid_dim_type": absent("Stable Diffusion"),
}
"""Bounds of what all their configurations have."""


class UNetFamily(Family):
    """The condition's tokens are the keys and values of cross-attention."""

    denoiser = "unet"
    layers: ClassVar = {"all": "", "attention": ".attn", "cross-attention": ".attn2."}
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")  # as in diffusers' own training scripts
    kohya_module = "networks.lora"
    rules: ClassVar = {**AUTOENCODERS}

    def defaults(self, parts: Mapping[str, Any], name: str) -> Defaults:
        """Latent consistency models (Luo et al. 2023) draw in four steps, as on their cards. One that was
        distilled whole embeds guidance. One with the LoRA of that method (arXiv 2311.05556) has none; its
        scheduler or its name shows what it is."""
        distilled = Defaults(guidance=8.0, steps=4, sampler="lcm")
        if self.embeds_guidance(parts[self.denoiser]):
            return distilled
        if type(parts["scheduler"]).__name__ == "LCMScheduler" or "lcm" in words(name):
            return replace(distilled, guidance=1.0)
        return self.usual

    def embeds_guidance(self, denoiser: Any) -> bool:
        return bool(denoiser.config.time_cond_proj_dim)

    def beside_level(self, denoiser: Any, condition: Condition) -> Tensor | None:
        """The U-Net's `timestep_cond` [B, W]: sines and cosines of 1000 (scale − 1), as in diffusers'
        pipelines. None without a scale, as in training."""
        if condition.guidance is None or not self.embeds_guidance(denoiser):
            return None
        width = int(denoiser.config.time_cond_proj_dim)
        half = width // 2
        rate = torch.log(torch.tensor(10_000.0)) / max(half - 1, 1)
        rates = torch.exp(torch.arange(half, dtype=torch.float32) * -rate)
        angles = ((condition.guidance.float().cpu() - 1) * 1000)[:, None] * rates[None, :]
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        return F.pad(waves, (0, width - 2 * half)).to(condition.tokens.device, denoiser.dtype)

    def latent_sides(self, denoiser: Any) -> tuple[int, int]:
        size = denoiser.config.sample_size
        h, w = (size, size) if isinstance(size, int) else size
        return int(h), int(w)

    def least_side(self, denoiser: Any) -> int:
        return int(2 ** (len(denoiser.config.block_out_channels) - 1))

    def check_latents(self, folder: Path, parts: Mapping[str, Any]) -> None:
        """UsageError unless the U-Net takes the latents of the autoencoder, and nothing else."""
        vae, unet = parts[self.autoencoder].config, parts[self.denoiser].config
        if unet.in_channels != vae.latent_channels:
            raise UsageError(
                f"model {folder} has a U-Net of {unet.in_channels} input channels for latents of "
                f"{vae.latent_channels} (an inpainting or depth model?); give its text-to-image relative"
            )
        if unet.sample_size is None:
            raise UnlikenessError(
                f"{folder / 'unet' / 'config.json'} has no sample_size, the side of its latents; correct it"
            )

    def check_width(self, folder: Path, tokens: Tensor, denoiser: Any) -> None:
        """UnlikenessError unless cross-attention takes tokens [B, L, D] of this width."""
        wanted, found = denoiser.config.cross_attention_dim, tokens.shape[-1]
        widths = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        if any(width != found for width in widths):
            raise UnlikenessError(
                f"model {folder} has a text encoder of width {found} (hidden_size) for a U-Net of "
                f"{wanted} (cross_attention_dim); its parts do not belong together, fetch or save it again"
            )


def words(name: str) -> list[str]:
    """The words of a model's name, in small letters."""
    return re.split(r"[^a-z0-9]+", name.lower())


def padded(tokenizer: Any, prompts: Sequence[str]) -> Any:
    """Token numbers and mask, [B, L] each, filled and cut to the tokenizer's length, as in training."""
    return tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
