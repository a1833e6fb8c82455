"""Stable Diffusion 1.x and 2.x: a U-Net, and one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from unlikeness.diffusion.condition import Condition, Conditioner
from unlikeness.diffusion.families import (
    AUTOENCODER,
    CLIP_CARRIED,
    CLIP_TOKENIZER,
    NOISE_SCHEDULERS,
    Defaults,
)
from unlikeness.diffusion.families.unet import UNET, UNetFamily, absent, padded
from unlikeness.diffusion.tokens import check_tokenizer
from unlikeness.networks.configs import CLIP_TEXT

__all__ = ["ClipConditioner", "StableDiffusion"]


class ClipConditioner(Conditioner):
    """One CLIP text encoder: its last hidden state."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Tokens [B, L, D], padded and cut to the tokenizer's length (77), as the model was trained."""
        encoder: Any = self.encoders["text_encoder"]
        tokens = padded(self.tokenizer, prompts)
        mask = tokens.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
        device = encoder.device
        return Condition(
            encoder(tokens.input_ids.to(device), attention_mask=None if mask is None else mask.to(device))[0]
        )


class StableDiffusion(UNetFamily):
    """The U-Net is conditioned on tokens alone."""

    pipeline = "StableDiffusionPipeline"
    title = "Stable Diffusion"
    kinds: ClassVar = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}
    lora_loader = "StableDiffusionLoraLoaderMixin"
    usual = Defaults(guidance=7.5)
    parts: ClassVar = {
        "vae": AUTOENCODER,
        "unet": ("diffusers", ("UNet2DConditionModel",)),
        "text_encoder": ("transformers", ("CLIPTextModel",)),
        "tokenizer": CLIP_TOKENIZER,
        "scheduler": ("diffusers", NOISE_SCHEDULERS),
    }
    carried = CLIP_CARRIED
    flags: ClassVar = {"requires_safety_checker": False}
    rules: ClassVar = {
        **UNetFamily.rules,
        "UNet2DConditionModel": {**UNET, "addition_embed_type": absent("Stable Diffusion 1.x and 2.x")},
        "CLIPTextModel": CLIP_TEXT,
    }
    encoders = ("text_encoder",)
    lora_encoders = encoders
    tokenizers = ("tokenizer",)

    def conditioner(
        self, parts: Mapping[str, Any], flags: Mapping[str, bool], resolution: int | None = None
    ) -> Conditioner:
        return ClipConditioner(
            {name: parts[name] for name in self.encoders}, {name: parts[name] for name in self.tokenizers}
        )

    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        dtype = denoiser.dtype
        f: Tensor = denoiser(
            z_t.to(dtype), t, encoder_hidden_states=condition.tokens.to(dtype),
            timestep_cond=self.beside_level(denoiser, condition), return_dict=False,
        )[0]  # fmt: skip
        return f

    def check_parts(self, folder: Path, parts: Mapping[str, Any]) -> None:
        self.check_latents(folder, parts)
        text = parts["text_encoder"].config
        check_tokenizer(
            parts["tokenizer"], words=text.vocab_size, longest=text.max_position_embeddings,
            what=f"the tokenizer of model {folder}",
        )  # fmt: skip

    def check_condition(self, folder: Path, condition: Condition, denoiser: Any) -> None:
        self.check_width(folder, condition.tokens, denoiser)
