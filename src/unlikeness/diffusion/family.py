"""What differs between families of models: how prompts become a condition, and how the network is called.

A further family (SDXL, SD3, FLUX) is one more class here or in a file of its own, entered in `FAMILIES` under
the pipeline class that its `model_index.json` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

__all__ = ["FAMILIES", "Family", "StableDiffusion"]


class Family(Protocol):
    """Stateless; the modules are passed in."""

    pipeline: str
    """The diffusers pipeline class written to `model_index.json`."""

    default_guidance: float
    """Classifier-free guidance scale that the family's authors use."""

    def embed(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> Tensor:
        """c [B, L, D]; differentiable w.r.t. the text encoder's parameters."""

    def predict(self, unet: Any, z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """f_θ(z_t, t, c), like z_t, in the network's dtype."""


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x: one CLIP text encoder, its last hidden state as cross-attention keys."""

    pipeline = "StableDiffusionPipeline"
    default_guidance = 7.5

    def embed(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> Tensor:
        """c [B, L, D], padded and cut to the tokenizer's length (77 tokens), as the model was trained."""
        tokens = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask if getattr(text_encoder.config, "use_attention_mask", False) else None
        device = text_encoder.device
        embedded: Tensor = text_encoder(
            tokens.input_ids.to(device), attention_mask=None if mask is None else mask.to(device)
        )[0]
        return embedded

    def predict(self, unet: Any, z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        f: Tensor = unet(z_t.to(unet.dtype), t, encoder_hidden_states=c.to(unet.dtype), return_dict=False)[0]
        return f


FAMILIES: dict[str, Family] = {"StableDiffusionPipeline": StableDiffusion()}
