"""Z-Image and Z-Image-Turbo: one stream of tokens, the picture's and those of a Qwen3 for the prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from unlikeness.autoencoders.opening import RULES as AUTOENCODERS
from unlikeness.diffusion.condition import Condition, Conditioner
from unlikeness.diffusion.expanding import plain
from unlikeness.diffusion.families import AUTOENCODER, Defaults
from unlikeness.diffusion.families.flow import FlowFamily, moved_by_size
from unlikeness.diffusion.single_file.names import Z_IMAGE
from unlikeness.diffusion.tokens import check_without_end
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.configs import FLAG, NULL, WIDTH, Rule, each, number, one_of, whole

if TYPE_CHECKING:
    from unlikeness.diffusion.families import Known

__all__ = ["ZImage", "ZImageCondition", "ZImageConditioner"]

TOKENS = 512
"""Of Qwen3, with the words around the prompt, as in diffusers' pipeline."""

SIDE = 128
"""Latents of a side: Z-Image draws at 1024 px, and its configuration does not say so."""

_ROUNDED = 32
"""The transformer fills up its tokens to multiples of this."""

_BEFORE, _AFTER = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Qwen3's words around a prompt, and the same as a template for the tokenizer of a saved copy. The one in a
model's folder is code, and is not run."""

_TRANSFORMER: dict[str, Rule] = {
    "all_patch_size": each(whole(2, 2), 1),
    "all_f_patch_size": each(whole(1, 1), 1),
    "in_channels": whole(1, 256),
    "dim": WIDTH,
    "n_layers": whole(0, 128),
    "n_refiner_layers": whole(0, 16),
    "n_heads": whole(1, 256),
    "n_kv_heads": whole(1, 256),
    "norm_eps": number(0, 1),
    "qk_norm": FLAG,
    "cap_feat_dim": WIDTH,
    "siglip_feat_dim": NULL,
    "rope_theta": number(1, 1e9),
    "t_scale": number(0, 1e6),
    "axes_dims": each(whole(2, 1024), 3, 3),
    "axes_lens": each(whole(1, 1 << 13), 3, 3),
}

_QWEN3: dict[str, Rule] = {
    "vocab_size": whole(2, 1 << 20),
    "hidden_size": WIDTH,
    "intermediate_size": whole(1, 1 << 16),
    "num_hidden_layers": whole(2, 128),
    "num_attention_heads": whole(1, 256),
    "num_key_value_heads": whole(1, 256),
    "head_dim": whole(2, 1024),
    "hidden_act": one_of("silu", "gelu", "relu"),
    "max_position_embeddings": whole(3, 1 << 20),
    "rms_norm_eps": number(0, 1),
    "rope_theta": number(1, 1e9),
    "rope_scaling": NULL,
    "rope_parameters": Rule(
        "rope_theta (1 to 1e9) with the rope_type default",
        lambda v: (
            isinstance(v, dict) and v.keys() == {"rope_theta", "rope_type"} and v["rope_type"] == "default"
            and number(1, 1e9).holds(v["rope_theta"])
        ),
    ),
    "attention_bias": FLAG,
    "attention_dropout": number(0, 1),
    "use_sliding_window": Rule("false", lambda v: v is False),
    "pad_token_id": NULL | whole(-1, 1 << 20),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ZImageCondition(Condition):
    """read: [B, L] bool, which of the tokens the transformer reads; the others fill up a short prompt."""

    read: Tensor | None = None


class ZImageConditioner(Conditioner):
    """The last but one hidden state of Qwen3, for the prompt as a user's turn of a conversation."""

    def encode(self, prompts: Sequence[str]) -> ZImageCondition:
        """Tokens [B, 512, D] and their mask [B, 512] (fewer if the tokenizer's length is)."""
        encoder: Any = self.encoders["text_encoder"]
        read = self.tokenizer(
            [f"{_BEFORE}{prompt}{_AFTER}" for prompt in prompts], padding="max_length",
            max_length=min(TOKENS, self.tokenizer.model_max_length), truncation=True, return_tensors="pt",
        ).to(encoder.device)  # fmt: skip
        mask = read.attention_mask.bool()
        found = encoder(input_ids=read.input_ids, attention_mask=mask, output_hidden_states=True)
        return ZImageCondition(found.hidden_states[-2], read=mask)

    def outline(self) -> ZImageCondition:
        """Of a prompt of all tokens: how many are read is a value, which an outline does not have."""
        count = min(TOKENS, self.tokenizer.model_max_length)
        width = self.encoders["text_encoder"].config.hidden_size
        tokens = torch.empty(1, count, width, device="meta")
        return ZImageCondition(tokens, read=torch.ones(1, count, dtype=torch.bool))

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        """Rotary embeddings stay float32, as in transformers."""
        modules = [module for encoder in self.encoders.values() for module in encoder.modules()]
        buffers = [
            (module, *named) for module in modules for named in list(module.named_buffers(recurse=False))
        ]
        super().to(device, dtype)
        for module, name, buffer in buffers:
            setattr(module, name, buffer.to(getattr(module, name).device))


class ZImage(FlowFamily):
    """The transformer reads 1 − σ for the level, and answers z0 − ε."""

    pipeline = "ZImagePipeline"
    title = "Z-Image"
    lora_loader = "ZImageLoraLoaderMixin"
    usual = Defaults(guidance=4.0, steps=50, sampler="euler")
    parts: ClassVar[Mapping[str, Known]] = {
        "vae": AUTOENCODER,
        "transformer": ("diffusers", ("ZImageTransformer2DModel",)),
        "text_encoder": ("transformers", ("Qwen3Model",)),
        "tokenizer": ("transformers", ("Qwen2Tokenizer", "Qwen2TokenizerFast")),
        "scheduler": FlowFamily.schedulers,
    }
    carried: ClassVar[Mapping[str, Known]] = {}
    rules: ClassVar = {**AUTOENCODERS, "ZImageTransformer2DModel": _TRANSFORMER, "Qwen3Model": _QWEN3}
    encoders = ("text_encoder",)
    tokenizers = ("tokenizer",)
    layers: ClassVar = {"all": "", "attention": ".attention.", "cross-attention": ".context_refiner."}
    lora_targets = ("to_k", "to_q", "to_v", "to_out.0")  # as in diffusers' train_dreambooth_lora_z_image.py
    lora_names = r"(noise|context)_refiner|(^|[._])layers[._]\d+[._](attention|feed_forward)[._]"
    original = Z_IMAGE
    density = "uniform"

    def defaults(self, parts: Mapping[str, Any], name: str) -> Defaults:
        """As on the models' cards: Turbo, by its name, draws in eight steps without guidance."""
        return Defaults(guidance=0.0, steps=8, sampler="euler") if "turbo" in name.lower() else self.usual

    def conditioner(
        self, parts: Mapping[str, Any], flags: Mapping[str, bool], resolution: int | None = None
    ) -> Conditioner:
        return ZImageConditioner(
            {name: parts[name] for name in self.encoders}, {name: parts[name] for name in self.tokenizers}
        )

    def guides(self, scale: float) -> bool:
        """0 is the prompt's own prediction, as in diffusers' pipeline."""
        return scale > 0

    def guided(
        self, predict: Callable[[Condition], Tensor], condition: Condition, unconditional: Condition,
        scale: float,
    ) -> Tensor:  # fmt: skip
        """f_c + scale · (f_c − f_∅)."""
        with_prompt, without = predict(condition.cat([condition, unconditional])).chunk(2)
        return with_prompt + scale * (with_prompt - without)

    def set_steps(
        self, solver: Any, steps: int, latents: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        """Evenly spaced levels from 1, as in diffusers' pipeline."""
        _, h, w = latents
        levels = torch.linspace(1.0, 1 / steps, steps).tolist()
        solver.set_timesteps(sigmas=levels, device=device, mu=moved_by_size(solver, (h // 2) * (w // 2)))

    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert isinstance(condition, ZImageCondition)
        assert condition.read is not None
        tokens = condition.tokens.to(denoiser.dtype)
        f: list[Tensor] = denoiser(
            list(z_t.to(denoiser.dtype).unsqueeze(2)),
            (1000 - t) / 1000,
            [words[read] for words, read in zip(tokens, condition.read, strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack(f).squeeze(2)

    def latent_sides(self, denoiser: Any) -> tuple[int, int]:
        return SIDE, SIDE

    def least_side(self, denoiser: Any) -> int:
        return 2

    def sides(self, denoiser: Any) -> tuple[int, int]:
        return 2, 2 * min(denoiser.config.axes_lens[1:])

    def check_parts(self, folder: Path, parts: Mapping[str, Any]) -> None:
        channels, latents = parts["transformer"].config.in_channels, parts["vae"].config.latent_channels
        if channels != latents:
            raise UsageError(
                f"model {folder} has a transformer of {channels} input channels for latents of {latents}; "
                "give its text-to-image relative"
            )
        tokenizer = plain(parts["tokenizer"])
        config, what = parts["text_encoder"].config, f"the tokenizer of model {folder}"
        check_without_end(tokenizer, config, TOKENS, what)
        tokenizer.chat_template = _TEMPLATE
        longest = min(TOKENS, tokenizer.model_max_length)
        places, filled = parts["transformer"].config.axes_lens[0], -(-longest // _ROUNDED) * _ROUNDED
        if places < filled + 2:
            raise UnlikenessError(
                f"{folder / 'transformer' / 'config.json'} has axes_lens with {places} places for prompts of "
                f"{filled} tokens and a picture behind them; fetch or save the model again"
            )

    def check_condition(self, folder: Path, condition: Condition, denoiser: Any) -> None:
        found, wanted = condition.tokens.shape[-1], denoiser.config.cap_feat_dim
        if found != wanted:
            raise UnlikenessError(
                f"model {folder} has a text encoder of width {found} (hidden_size) for a transformer of "
                f"{wanted} (cap_feat_dim); its parts do not belong together, fetch or save it again"
            )
