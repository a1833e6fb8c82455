"""Stable Diffusion XL: a U-Net that also takes a pooled vector and sizes, and two CLIP text encoders.

SDXL-Turbo and SDXL-Lightning are recognised by their names, since their files hold nothing else that tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlikeness.autoencoders import Autoencoder
from unlikeness.diffusion.condition import Condition, Conditioner
from unlikeness.diffusion.families import (
    AUTOENCODER,
    CLIP_CARRIED,
    CLIP_TOKENIZER,
    NOISE_SCHEDULERS,
    Defaults,
)
from unlikeness.diffusion.families.unet import UNET, UNetFamily, padded, words
from unlikeness.diffusion.tokens import check_tokenizer
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.configs import CLIP_TEXT, WIDTH, one_of

__all__ = ["Sized", "StableDiffusionXL", "XLConditioner"]

_IDS = 6
"""Size ids: original height and width, top and left of the crop, target height and width [px]."""


@dataclass(frozen=True, eq=False)
class Sized(Condition):
    """sizes: [B, 6], see `_IDS`."""

    sizes: Tensor | None = None


class XLConditioner(Conditioner):
    """Two CLIPs: the states before the last layer of both, side by side, and the pooled vector of the second.

    side: of the pictures [px]. The sizes are those of a whole picture of this side, as in the pipeline. In
    diffusers' training script a picture of this side has them too.
    zeros: without a prompt everything is zero (`force_zeros_for_empty_prompt`).
    """

    def __init__(
        self, encoders: Mapping[str, Any], tokenizers: Mapping[str, Any], *, side: int, zeros: bool
    ) -> None:
        super().__init__(encoders, tokenizers)
        self.side = side
        self.zeros = zeros

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Tokens [B, L, D1 + D2], pooled [B, P] and sizes [B, 6]."""
        states = []
        pooled: Tensor | None = None
        for encoder, tokenizer in zip(self.encoders.values(), self.tokenizers.values(), strict=True):
            ids = padded(tokenizer, prompts).input_ids.to(encoder.device)
            found = encoder(ids, output_hidden_states=True)
            states.append(found.hidden_states[-2])
            pooled = found[0]  # of the last encoder, which projects it
        tokens = torch.cat(states, dim=-1)
        sizes = torch.tensor([self.side, self.side, 0, 0, self.side, self.side], device=tokens.device)
        return Sized(tokens, pooled, sizes=sizes.to(tokens.dtype).expand(len(tokens), _IDS))

    def nothing(self) -> Condition:
        """Zeros where the model was trained so, else the empty prompt."""
        c = self.encode([""])
        if not self.zeros:
            return c
        assert c.pooled is not None
        return replace(c, tokens=torch.zeros_like(c.tokens), pooled=torch.zeros_like(c.pooled))


class StableDiffusionXL(UNetFamily):
    """The U-Net adds the pooled vector and the sizes to its time embedding."""

    pipeline = "StableDiffusionXLPipeline"
    title = "Stable Diffusion XL"
    kinds: ClassVar = {2048: title}
    lora_names = r"^(lora_te2_|text_encoder_2\.)"
    lora_loader = "StableDiffusionXLLoraLoaderMixin"
    usual = Defaults(guidance=5.0)
    parts: ClassVar = {
        "vae": AUTOENCODER,
        "unet": ("diffusers", ("UNet2DConditionModel",)),
        "text_encoder": ("transformers", ("CLIPTextModel",)),
        "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": CLIP_TOKENIZER,
        "scheduler": ("diffusers", NOISE_SCHEDULERS),
    }
    carried: ClassVar = {name: CLIP_CARRIED[name] for name in ("feature_extractor", "image_encoder")}
    flags: ClassVar = {"force_zeros_for_empty_prompt": True}
    rules: ClassVar = {
        **UNetFamily.rules,
        "UNet2DConditionModel": {
            **UNET,
            "addition_embed_type": one_of("text_time"),
            "addition_time_embed_dim": WIDTH,
            "projection_class_embeddings_input_dim": WIDTH,
        },
        "CLIPTextModel": CLIP_TEXT,
        "CLIPTextModelWithProjection": CLIP_TEXT,
    }
    encoders = ("text_encoder", "text_encoder_2")
    lora_encoders = encoders
    tokenizers = ("tokenizer", "tokenizer_2")

    def defaults(self, parts: Mapping[str, Any], name: str) -> Defaults:
        """Turbo draws in one step (Sauer et al. 2023). Lightning (Lin et al. 2024) draws in as many as its
        name says, or 4. Both draw without guidance."""
        if "turbo" in words(name):
            return Defaults(guidance=0.0, steps=1, sampler="euler", spacing="trailing")
        if "lightning" in words(name):
            said = re.search(r"(\d+)[-_ ]?steps?", name.lower())
            steps = int(said[1]) if said and int(said[1]) else 4
            return Defaults(guidance=0.0, steps=steps, sampler="euler", spacing="trailing")
        return super().defaults(parts, name)

    def conditioner(
        self, parts: Mapping[str, Any], flags: Mapping[str, bool], resolution: int | None = None
    ) -> Conditioner:
        unet, vae = parts[self.denoiser], parts[self.autoencoder]
        return XLConditioner(
            {name: parts[name] for name in self.encoders},
            {name: parts[name] for name in self.tokenizers},
            side=resolution or self.latent_sides(unet)[0] * Autoencoder(vae).factor,
            zeros=flags["force_zeros_for_empty_prompt"],
        )

    def sized(self, condition: Condition, height: int, width: int) -> Condition:
        assert isinstance(condition, Sized), "a condition of this family"
        sizes = condition.tokens.new_tensor([height, width, 0, 0, height, width])
        return replace(condition, sizes=sizes.expand(len(condition), _IDS))

    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert isinstance(condition, Sized), "a condition of this family"
        assert condition.pooled is not None
        dtype = denoiser.dtype
        f: Tensor = denoiser(
            z_t.to(dtype),
            t,
            encoder_hidden_states=condition.tokens.to(dtype),
            timestep_cond=self.beside_level(denoiser, condition),
            added_cond_kwargs={"text_embeds": condition.pooled.to(dtype), "time_ids": condition.sizes},
            return_dict=False,
        )[0]
        return f

    def check_parts(self, folder: Path, parts: Mapping[str, Any]) -> None:
        self.check_latents(folder, parts)
        unet, last = parts["unet"].config, parts["text_encoder_2"].config
        if unet.addition_embed_type != "text_time":
            raise UnlikenessError(
                f"{folder / 'unet' / 'config.json'} has no addition_embed_type = text_time, as every Stable "
                "Diffusion XL has; fetch or save it again"
            )
        wanted = unet.projection_class_embeddings_input_dim
        rest, least = wanted - last.projection_dim, unet.addition_time_embed_dim
        if rest == 5 * least:
            raise UsageError(
                f"model {folder} is a refiner of Stable Diffusion XL, which draws nothing from text alone; "
                "give its base model"
            )
        if rest != _IDS * least:
            raise UnlikenessError(
                f"model {folder} has a U-Net that takes {wanted} values "
                f"(projection_class_embeddings_input_dim), and its second text encoder and sizes make "
                f"{last.projection_dim} + {_IDS} × {least}; its parts do not belong together, fetch or save "
                "it again"
            )
        for name, encoder in zip(self.tokenizers, self.encoders, strict=True):
            text = parts[encoder].config
            check_tokenizer(
                parts[name], words=text.vocab_size, longest=text.max_position_embeddings,
                what=f"the {name} of model {folder}",
            )  # fmt: skip
        lengths = [parts[name].model_max_length for name in self.tokenizers]
        if len(set(lengths)) > 1:
            raise UnlikenessError(
                f"model {folder} has tokenizers of {lengths[0]} and {lengths[1]} tokens (model_max_length), "
                "which must be equal; fetch or save it again"
            )

    def check_condition(self, folder: Path, condition: Condition, denoiser: Any) -> None:
        self.check_width(folder, condition.tokens, denoiser)
