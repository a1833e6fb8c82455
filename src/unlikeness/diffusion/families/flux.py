"""FLUX.1 dev and schnell: a flow transformer on packed latents, with CLIP's pooled vector and T5's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unlikeness.autoencoders.opening import RULES as AUTOENCODERS
from unlikeness.diffusion.condition import Condition, Conditioner
from unlikeness.diffusion.families import AUTOENCODER, CLIP_TOKENIZER, Defaults
from unlikeness.diffusion.families.flow import FlowFamily, moved_by_size
from unlikeness.diffusion.single_file.names import FLUX
from unlikeness.diffusion.t5 import T5Conditioner, encode_t5
from unlikeness.diffusion.tokens import check_tokenizer, check_without_end
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.configs import CLIP_TEXT, FLAG, NULL, T5_TEXT, WIDTH, Rule, each, whole

if TYPE_CHECKING:
    from unlikeness.diffusion.families import Known

__all__ = ["Flux", "FluxConditioner"]

TOKENS = 512
"""Of T5, as in diffusers' pipeline."""

SIDE = 128
"""Latents of a side: FLUX.1 draws at 1024 px, and its configuration does not say so."""

TRAINED_AT = 3.5
"""The guidance that dev embeds in training, as in diffusers' train_dreambooth_lora_flux.py."""

_TRANSFORMER: dict[str, Rule] = {
    "patch_size": whole(1, 1),
    "in_channels": whole(1, 1024),
    "out_channels": NULL | whole(1, 1024),
    "num_layers": whole(0, 64),
    "num_single_layers": whole(0, 128),
    "attention_head_dim": whole(2, 1024),
    "num_attention_heads": whole(1, 256),
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    "guidance_embeds": FLAG,
    "axes_dims_rope": each(whole(2, 1024), 3, 3),
}


class FluxConditioner(T5Conditioner):
    """The CLIP's pooled vector, and T5's last hidden state."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Tokens [B, 512, D] (fewer if the tokenizer's length is), pooled [B, P]."""
        clip: Any = self.encoders["text_encoder"]
        tokenizer = self.tokenizers["tokenizer"]
        read = tokenizer(
            list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        pooled = clip(read.input_ids.to(clip.device)).pooler_output
        tokens = encode_t5(self.encoders["text_encoder_2"], self.tokenizers["tokenizer_2"], prompts, TOKENS)
        return Condition(tokens, pooled)


class Flux(FlowFamily):
    """The transformer reads every 2 × 2 latents as one token, beside the prompt's."""

    pipeline = "FluxPipeline"
    title = "FLUX"
    lora_loader = "FluxLoraLoaderMixin"
    usual = Defaults(guidance=3.5, steps=28, sampler="euler")
    parts: ClassVar[Mapping[str, Known]] = {
        "vae": AUTOENCODER,
        "transformer": ("diffusers", ("FluxTransformer2DModel",)),
        "text_encoder": ("transformers", ("CLIPTextModel",)),
        "tokenizer": CLIP_TOKENIZER,
        "text_encoder_2": ("transformers", ("T5EncoderModel",)),
        "tokenizer_2": ("transformers", ("T5TokenizerFast", "T5Tokenizer")),
        "scheduler": FlowFamily.schedulers,
    }
    carried: ClassVar = {
        "image_encoder": ("transformers", ("CLIPVisionModelWithProjection",)),
        "feature_extractor": ("transformers", ("CLIPImageProcessor", "CLIPImageProcessorFast")),
    }
    rules: ClassVar = {
        **AUTOENCODERS,
        "FluxTransformer2DModel": _TRANSFORMER,
        "CLIPTextModel": CLIP_TEXT,
        "T5EncoderModel": T5_TEXT,
    }
    encoders = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")
    layers: ClassVar = {"all": "", "attention": ".attn.", "cross-attention": ".attn.add_"}
    prompt_layers = ("add_k_proj", "add_v_proj")
    lora_encoders = ("text_encoder",)
    lora_names = r"double_blocks|single_blocks|single_transformer_blocks"
    kohya_module = "networks.lora_flux"
    original = FLUX
    lora_targets = (  # as in diffusers' train_dreambooth_lora_flux.py
        "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj",
        "attn.add_v_proj", "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj",
        "ff_context.net.2",
    )  # fmt: skip
    density = "uniform"

    def defaults(self, parts: Mapping[str, Any], name: str) -> Defaults:
        """Four steps for schnell, which has no guidance."""
        if self.embeds_guidance(parts[self.denoiser]):
            return self.usual
        return Defaults(guidance=0.0, steps=4, sampler="euler")

    def conditioner(
        self, parts: Mapping[str, Any], flags: Mapping[str, bool], resolution: int | None = None
    ) -> Conditioner:
        return FluxConditioner(
            {name: parts[name] for name in self.encoders}, {name: parts[name] for name in self.tokenizers}
        )

    def embeds_guidance(self, denoiser: Any) -> bool:
        return bool(denoiser.config.guidance_embeds)

    def set_steps(
        self, solver: Any, steps: int, latents: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        """Evenly spaced levels from 1, moved by the number of tokens, as in diffusers' pipeline."""
        _, h, w = latents
        levels = np.linspace(1, 1 / steps, steps)
        solver.set_timesteps(sigmas=levels, device=device, mu=moved_by_size(solver, (h // 2) * (w // 2)))

    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        dtype, device, h, w = denoiser.dtype, z_t.device, *z_t.shape[-2:]
        guidance = condition.guidance
        if not self.embeds_guidance(denoiser):
            guidance = None
        elif guidance is None:
            guidance = torch.full((len(z_t),), TRAINED_AT, device=device, dtype=torch.float32)
        tokens = condition.tokens.to(dtype)
        assert condition.pooled is not None
        f = denoiser(
            hidden_states=_packed(z_t.to(dtype)),
            timestep=t.to(dtype) / 1000,
            guidance=guidance,
            pooled_projections=condition.pooled.to(dtype),
            encoder_hidden_states=tokens,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=device, dtype=dtype),
            img_ids=_places(h // 2, w // 2).to(device, dtype),
            return_dict=False,
        )[0]
        return _unpacked(f, h, w)

    def latent_sides(self, denoiser: Any) -> tuple[int, int]:
        return SIDE, SIDE

    def least_side(self, denoiser: Any) -> int:
        return 2

    def sides(self, denoiser: Any) -> tuple[int, int]:
        return 2, 1 << 14

    def check_parts(self, folder: Path, parts: Mapping[str, Any]) -> None:
        vae, transformer = parts["vae"].config, parts["transformer"].config
        inputs, latents = transformer.in_channels, 4 * vae.latent_channels
        if inputs != latents or transformer.out_channels not in (None, latents):
            raise UsageError(
                f"model {folder} has a transformer of {inputs} input channels for packed latents of "
                f"{latents} (FLUX Fill, Control or Redux?); give its text-to-image relative"
            )
        if sum(transformer.axes_dims_rope) != transformer.attention_head_dim:
            raise UnlikenessError(
                f"{folder / 'transformer' / 'config.json'} has axes_dims_rope that do not add up to "
                f"attention_head_dim = {transformer.attention_head_dim}; fetch or save the model again"
            )
        clip = parts["text_encoder"].config
        check_tokenizer(
            parts["tokenizer"], words=clip.vocab_size, longest=clip.max_position_embeddings,
            what=f"the tokenizer of model {folder}",
        )  # fmt: skip
        check_without_end(
            parts["tokenizer_2"], parts["text_encoder_2"].config, TOKENS, f"the tokenizer_2 of model {folder}"
        )

    def check_condition(self, folder: Path, condition: Condition, denoiser: Any) -> None:
        assert condition.pooled is not None
        config = denoiser.config
        found = condition.tokens.shape[-1], condition.pooled.shape[-1]
        if found != (config.joint_attention_dim, config.pooled_projection_dim):
            raise UnlikenessError(
                f"model {folder} has text encoders of widths {found[1]} and {found[0]} for a transformer of "
                f"{config.pooled_projection_dim} (pooled_projection_dim) and {config.joint_attention_dim} "
                "(joint_attention_dim); its parts do not belong together, fetch or save it again"
            )


def _packed(z: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h/2 · w/2, 4C]: each square of 2 × 2 latents as one token."""
    b, c, h, w = z.shape
    return (
        z.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h // 2 * (w // 2), 4 * c)
    )


def _unpacked(tokens: Tensor, h: int, w: int) -> Tensor:
    """The inverse of `_packed`."""
    b, _, c = tokens.shape
    z = tokens.reshape(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return z.reshape(b, c // 4, h, w)


def _places(rows: int, columns: int) -> Tensor:
    """[rows · columns, 3]: 0, row and column of each token, for the rotary embedding."""
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2).float()
    return torch.cat([torch.zeros(len(grid), 1), grid], 1)
