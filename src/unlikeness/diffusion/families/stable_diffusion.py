"""Stable Diffusion 1.x and 2.x: a U-Net, and one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from unlikeness.autoencoders.opening import RULES as AUTOENCODERS
from unlikeness.diffusion.condition import Condition, Conditioner
from unlikeness.diffusion.families import CLIP_CARRIED, NOISE_SCHEDULERS, Defaults, Family
from unlikeness.diffusion.tokens import check_tokenizer
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.configs import (
    ACTIVATION,
    CLIP_TEXT,
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

__all__ = ["ClipConditioner", "StableDiffusion"]


_ABSENT = Rule("null, as in every Stable Diffusion 1.x and 2.x", lambda v: v in (None, False))
_USUAL = Rule("as in every Stable Diffusion 1.x and 2.x", lambda v: v in (None, "default", "positional"))
_PAIR = Rule(
    "a pair of equal sides",
    lambda v: isinstance(v, list) and len(v) == 2 and v[0] == v[1] and SIDE.holds(v[0]),
)

_UNET: dict[str, Rule] = {
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
    "class_embed_type": _ABSENT,
    "num_class_embeds": _ABSENT,
    "class_embeddings_concat": _ABSENT,
    "addition_embed_type": _ABSENT,
    "encoder_hid_dim": _ABSENT,
    "encoder_hid_dim_type": _ABSENT,
}


class ClipConditioner(Conditioner):
    """One CLIP text encoder: its last hidden state."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Tokens [B, L, D], padded and cut to the tokenizer's length (77), as the model was trained."""
        encoder: Any = self.encoders["text_encoder"]
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
        device = encoder.device
        return Condition(
            encoder(tokens.input_ids.to(device), attention_mask=None if mask is None else mask.to(device))[0]
        )


class StableDiffusion(Family):
    """The condition's tokens are the keys and values of cross-attention."""

    pipeline = "StableDiffusionPipeline"
    lora_loader = "StableDiffusionLoraLoaderMixin"
    usual = Defaults(guidance=7.5)
    parts: ClassVar = {
        "vae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny")),
        "unet": ("diffusers", ("UNet2DConditionModel",)),
        "text_encoder": ("transformers", ("CLIPTextModel",)),
        "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
        "scheduler": ("diffusers", NOISE_SCHEDULERS),
    }
    carried = CLIP_CARRIED
    flags: ClassVar = {"requires_safety_checker": False}
    rules: ClassVar = {**AUTOENCODERS, "UNet2DConditionModel": _UNET, "CLIPTextModel": CLIP_TEXT}
    denoiser = "unet"
    encoders = ("text_encoder",)
    tokenizers = ("tokenizer",)
    layers: ClassVar = {"all": "", "attention": ".attn", "cross-attention": ".attn2."}
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")  # as in diffusers' own training scripts

    def conditioner(self, parts: Mapping[str, Any], flags: Mapping[str, bool]) -> Conditioner:
        return ClipConditioner(
            {name: parts[name] for name in self.encoders}, {name: parts[name] for name in self.tokenizers}
        )

    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        dtype = denoiser.dtype
        f: Tensor = denoiser(
            z_t.to(dtype), t, encoder_hidden_states=condition.tokens.to(dtype), return_dict=False
        )[0]
        return f

    def latent_sides(self, denoiser: Any) -> tuple[int, int]:
        size = denoiser.config.sample_size
        h, w = (size, size) if isinstance(size, int) else size
        return int(h), int(w)

    def least_side(self, denoiser: Any) -> int:
        return int(2 ** (len(denoiser.config.block_out_channels) - 1))

    def check_parts(self, folder: Path, parts: Mapping[str, Any]) -> None:
        vae, unet, text = (parts[name].config for name in self.networks)
        if unet.in_channels != vae.latent_channels:
            raise UsageError(
                f"model {folder} has a U-Net of {unet.in_channels} input channels for latents of "
                f"{vae.latent_channels} (an inpainting or depth model?); give its text-to-image relative"
            )
        if unet.sample_size is None:
            raise UnlikenessError(
                f"{folder / 'unet' / 'config.json'} has no sample_size, the side of its latents; correct it"
            )
        check_tokenizer(
            parts["tokenizer"], words=text.vocab_size, longest=text.max_position_embeddings,
            what=f"the tokenizer of model {folder}",
        )  # fmt: skip

    def check_condition(self, folder: Path, condition: Condition, denoiser: Any) -> None:
        wanted, found = denoiser.config.cross_attention_dim, condition.tokens.shape[-1]
        widths = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        if any(width != found for width in widths):
            raise UnlikenessError(
                f"model {folder} has a text encoder of width {found} (hidden_size) for a U-Net of "
                f"{wanted} (cross_attention_dim); its parts do not belong together, fetch or save it again"
            )
