"""Stable Diffusion 1.x and 2.x: a U-Net, and one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.conditioner import Conditioner
from unlikeness.diffusion.families.family import Family
from unlikeness.diffusion.known import CLIP_CARRIED, NOISE_SCHEDULERS
from unlikeness.diffusion.tokens import check_tokenizer
from unlikeness.errors import UnlikenessError, UsageError

__all__ = ["ClipConditioner", "StableDiffusion"]


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
    default_guidance = 7.5
    parts: ClassVar = {
        "vae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny")),
        "unet": ("diffusers", ("UNet2DConditionModel",)),
        "text_encoder": ("transformers", ("CLIPTextModel",)),
        "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
        "scheduler": ("diffusers", NOISE_SCHEDULERS),
    }
    carried = CLIP_CARRIED
    denoiser = "unet"
    encoders = ("text_encoder",)
    tokenizers = ("tokenizer",)
    layers: ClassVar = {"all": "", "attention": ".attn", "cross-attention": ".attn2."}
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")  # as in diffusers' own training scripts

    def conditioner(self, parts: Mapping[str, Any]) -> Conditioner:
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
