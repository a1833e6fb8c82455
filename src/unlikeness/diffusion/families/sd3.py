"""Stable Diffusion 3 and 3.5: a transformer (MMDiT) that reads two CLIPs and, where it is there, T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.autoencoders.opening import RULES as AUTOENCODERS
from unlikeness.diffusion.condition import Condition, Conditioner
from unlikeness.diffusion.families import AUTOENCODER, CLIP_TOKENIZER, Defaults
from unlikeness.diffusion.families.flow import FlowFamily, moved_by_size
from unlikeness.diffusion.single_file.names import SD3
from unlikeness.diffusion.t5 import T5Conditioner, encode_t5
from unlikeness.diffusion.tokens import check_tokenizer, check_without_end
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.configs import CLIP_TEXT, NULL, SIDE, T5_TEXT, WIDTH, Rule, each, one_of, whole

if TYPE_CHECKING:
    from unlikeness.diffusion.families import Known

__all__ = ["StableDiffusion3", "StableDiffusion3Conditioner"]

TOKENS = 256
"""Of T5, as in diffusers' pipeline."""

_TRANSFORMER: dict[str, Rule] = {
    "sample_size": SIDE,
    "patch_size": whole(1, 16),
    "in_channels": whole(1, 256),
    "out_channels": NULL | whole(1, 256),
    "num_layers": whole(1, 128),
    "attention_head_dim": whole(1, 1024),
    "num_attention_heads": whole(1, 256),
    "joint_attention_dim": WIDTH,
    "caption_projection_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    "pos_embed_max_size": whole(1, 1024),
    "dual_attention_layers": each(whole(0, 128), 128, 0),
    "qk_norm": NULL | one_of("rms_norm"),
}


class StableDiffusion3Conditioner(T5Conditioner):
    """The CLIPs' last but one hidden states side by side, then T5's last one; the CLIPs' pooled vectors.

    width: of the transformer's tokens, to which the CLIPs' are filled up with zeros. Without T5 its tokens
    are zeros.
    """

    def __init__(self, encoders: Mapping[str, Any], tokenizers: Mapping[str, Any], width: int) -> None:
        super().__init__(encoders, tokenizers)
        self.width = width

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Tokens [B, 77 + 256, D], pooled [B, P]."""
        tokens, pooled = [], []
        for name in ("", "_2"):
            encoder: Any = self.encoders[f"text_encoder{name}"]
            tokenizer = self.tokenizers[f"tokenizer{name}"]
            read = tokenizer(
                list(prompts), padding="max_length", max_length=self.tokenizer.model_max_length,
                truncation=True, return_tensors="pt",
            )  # fmt: skip
            found = encoder(read.input_ids.to(encoder.device), output_hidden_states=True)
            tokens.append(found.hidden_states[-2])
            pooled.append(found[0])
        clip = torch.cat(tokens, -1)
        clip = F.pad(clip, (0, self.width - clip.shape[-1]))
        if "text_encoder_3" in self.encoders:
            t5 = encode_t5(self.encoders["text_encoder_3"], self.tokenizers["tokenizer_3"], prompts, TOKENS)
        else:
            t5 = clip.new_zeros(len(prompts), TOKENS, self.width)
        return Condition(torch.cat([clip, t5.to(clip.dtype)], 1), torch.cat(pooled, -1))


class StableDiffusion3(FlowFamily):
    """The transformer reads the prompt's tokens beside those of the latents."""

    pipeline = "StableDiffusion3Pipeline"
    title = "Stable Diffusion 3"
    lora_loader = "SD3LoraLoaderMixin"
    usual = Defaults(guidance=7.0, steps=28, sampler="euler")
    parts: ClassVar[Mapping[str, Known]] = {
        "vae": AUTOENCODER,
        "transformer": ("diffusers", ("SD3Transformer2DModel",)),
        "text_encoder": ("transformers", ("CLIPTextModelWithProjection",)),
        "tokenizer": CLIP_TOKENIZER,
        "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
        "tokenizer_2": CLIP_TOKENIZER,
        "text_encoder_3": ("transformers", ("T5EncoderModel",)),
        "tokenizer_3": ("transformers", ("T5TokenizerFast", "T5Tokenizer")),
        "scheduler": FlowFamily.schedulers,
    }
    optional = ("text_encoder_3", "tokenizer_3")
    carried: ClassVar = {
        "image_encoder": ("transformers", ("SiglipVisionModel",)),
        "feature_extractor": ("transformers", ("SiglipImageProcessor", "SiglipImageProcessorFast")),
    }
    rules: ClassVar = {
        **AUTOENCODERS,
        "SD3Transformer2DModel": _TRANSFORMER,
        "CLIPTextModelWithProjection": CLIP_TEXT,
        "T5EncoderModel": T5_TEXT,
    }
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    tokenizers = ("tokenizer", "tokenizer_2", "tokenizer_3")
    layers: ClassVar = {"all": "", "attention": ".attn", "cross-attention": ".attn.add_"}
    prompt_layers = ("add_k_proj", "add_v_proj")
    lora_encoders = ("text_encoder", "text_encoder_2")
    lora_names = r"joint_blocks|add_q_proj"
    kohya_module = "networks.lora_sd3"
    original = SD3
    lora_targets = (  # as in diffusers' train_dreambooth_lora_sd3.py
        "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out", "attn.to_k",
        "attn.to_out.0", "attn.to_q", "attn.to_v",
    )  # fmt: skip
    weighting = "z0"  # precondition_outputs of the same script

    def defaults(self, parts: Mapping[str, Any], name: str) -> Defaults:
        """As on the models' cards: 3.5 Turbo by its name, 3.5 Medium and Large by their layers, else 3."""
        config = parts[self.denoiser].config
        if "turbo" in name.lower():
            return Defaults(guidance=0.0, steps=4, sampler="euler")
        if config.dual_attention_layers:
            return Defaults(guidance=4.5, steps=40, sampler="euler")
        return Defaults(guidance=3.5, steps=28, sampler="euler") if config.qk_norm else self.usual

    def conditioner(
        self, parts: Mapping[str, Any], flags: Mapping[str, bool], resolution: int | None = None
    ) -> Conditioner:
        return StableDiffusion3Conditioner(
            {name: parts[name] for name in self.encoders}, {name: parts[name] for name in self.tokenizers},
            parts[self.denoiser].config.joint_attention_dim,
        )  # fmt: skip

    def set_steps(
        self, solver: Any, steps: int, latents: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        _, h, w = latents
        solver.set_timesteps(steps, device=device, mu=moved_by_size(solver, (h // 2) * (w // 2)))

    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        dtype = denoiser.dtype
        assert condition.pooled is not None
        f: Tensor = denoiser(
            hidden_states=z_t.to(dtype),
            timestep=t,
            encoder_hidden_states=condition.tokens.to(dtype),
            pooled_projections=condition.pooled.to(dtype),
            return_dict=False,
        )[0]
        return f

    def latent_sides(self, denoiser: Any) -> tuple[int, int]:
        return denoiser.config.sample_size, denoiser.config.sample_size

    def least_side(self, denoiser: Any) -> int:
        return int(denoiser.config.patch_size)

    def sides(self, denoiser: Any) -> tuple[int, int]:
        patch = int(denoiser.config.patch_size)
        return patch, patch * denoiser.config.pos_embed_max_size

    def check_parts(self, folder: Path, parts: Mapping[str, Any]) -> None:
        vae, transformer = parts["vae"].config, parts["transformer"].config
        latents = vae.latent_channels
        if transformer.in_channels != latents or transformer.out_channels not in (None, latents):
            raise UsageError(
                f"model {folder} has a transformer of {transformer.in_channels} input channels for latents "
                f"of {latents} (an inpainting model?); give its text-to-image relative"
            )
        if transformer.sample_size > transformer.pos_embed_max_size * transformer.patch_size:
            raise UnlikenessError(
                f"{folder / 'transformer' / 'config.json'} has a sample_size beyond pos_embed_max_size; "
                "fetch or save the model again"
            )
        width = sum(parts[f"text_encoder{name}"].config.hidden_size for name in ("", "_2"))
        if width > transformer.joint_attention_dim:
            raise UnlikenessError(
                f"model {folder} has CLIPs of {width} values together for a transformer of "
                f"{transformer.joint_attention_dim} (joint_attention_dim); its parts do not belong together, "
                "fetch or save it again"
            )
        for name in ("", "_2"):
            clip = parts[f"text_encoder{name}"].config
            check_tokenizer(
                parts[f"tokenizer{name}"], words=clip.vocab_size, longest=clip.max_position_embeddings,
                what=f"the tokenizer{name} of model {folder}",
            )  # fmt: skip
        if ("text_encoder_3" in parts) != ("tokenizer_3" in parts):
            raise UnlikenessError(
                f"model {folder} has only one of text_encoder_3 and tokenizer_3; fetch or save it again"
            )
        if "text_encoder_3" in parts:
            what = f"the tokenizer_3 of model {folder}"
            check_without_end(parts["tokenizer_3"], parts["text_encoder_3"].config, TOKENS, what)

    def check_condition(self, folder: Path, condition: Condition, denoiser: Any) -> None:
        assert condition.pooled is not None
        config = denoiser.config
        found = condition.tokens.shape[-1], condition.pooled.shape[-1]
        if found != (config.joint_attention_dim, config.pooled_projection_dim):
            raise UnlikenessError(
                f"model {folder} has text encoders of widths {found[0]} and {found[1]} (pooled) for a "
                f"transformer of {config.joint_attention_dim} (joint_attention_dim) and "
                f"{config.pooled_projection_dim} (pooled_projection_dim); its parts do not belong together, "
                "fetch or save it again"
            )
