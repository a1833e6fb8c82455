"""The configuration of a part: which values it may have, so that building it takes bounded time and memory.

The bounds are far beyond any model of this kind. What a value does to the shapes of weights is judged later,
against the file of weights (`building.fill`), and what it does to a picture by a trial (`trial.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlikeness.diffusion.known import read_object
from unlikeness.errors import UnlikenessError, UsageError, one_line

__all__ = ["CLIP_TEXT", "CLIP_VISION", "CLIP_WHOLE", "RULES", "Rule", "check", "read_config"]


@dataclass(frozen=True)
class Rule:
    """said: what a value must be, as in "must be a whole number from 1 to 8"."""

    said: str
    holds: Callable[[Any], bool]

    def __or__(self, other: Rule) -> Rule:
        return Rule(f"{self.said} or {other.said}", lambda v: self.holds(v) or other.holds(v))


def _whole(low: int, high: int) -> Rule:
    return Rule(
        f"a whole number from {low} to {high}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
    )


def _number(low: float, high: float) -> Rule:
    return Rule(
        f"a number from {low:g} to {high:g}",
        lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high,
    )


def _one_of(*words: str) -> Rule:
    return Rule(f"one of {', '.join(words)}", lambda v: isinstance(v, str) and v in words)


def _each(rule: Rule, most: int = 8, least: int = 1) -> Rule:
    return Rule(
        f"a list of up to {most}, each {rule.said}",
        lambda v: isinstance(v, list) and least <= len(v) <= most and all(map(rule.holds, v)),
    )


_NULL = Rule("null", lambda v: v is None)
_FLAG = Rule("true or false", lambda v: isinstance(v, bool))
_WORD = Rule("a short text", lambda v: isinstance(v, str) and len(v) <= 64)
_WIDTH = _whole(1, 1 << 14)
_LAYERS = _whole(1, 32)
_ABSENT = Rule("null, as in every Stable Diffusion 1.x and 2.x", lambda v: v in (None, False))
_USUAL = Rule("as in every Stable Diffusion 1.x and 2.x", lambda v: v in (None, "default", "positional"))
_PLAIN = _WORD | _FLAG | _NULL | _number(-1e5, 1e5)
_ANY = _PLAIN | _each(_PLAIN | _each(_PLAIN, 16, 0), 16, 0)
"""Of settings that are not listed: they change little, and must not be large."""

_ACTIVATION = _one_of("silu", "swish", "mish", "gelu", "relu", "quick_gelu", "gelu_new", "gelu_pytorch_tanh")
_SIDE = _whole(1, 1024)
_PAIR = Rule(
    "a pair of equal sides",
    lambda v: isinstance(v, list) and len(v) == 2 and v[0] == v[1] and _SIDE.holds(v[0]),
)

_UNET: dict[str, Rule] = {
    "sample_size": _SIDE | _PAIR,
    "in_channels": _whole(1, 256),
    "out_channels": _whole(1, 256),
    "center_input_sample": _FLAG,
    "flip_sin_to_cos": _FLAG,
    "freq_shift": _number(-1, 1),
    "down_block_types": _each(_one_of("DownBlock2D", "CrossAttnDownBlock2D")),
    "up_block_types": _each(_one_of("UpBlock2D", "CrossAttnUpBlock2D")),
    "mid_block_type": _one_of("UNetMidBlock2DCrossAttn", "UNetMidBlock2D") | _NULL,
    "block_out_channels": _each(_WIDTH),
    "layers_per_block": _LAYERS | _each(_LAYERS),
    "transformer_layers_per_block": _LAYERS | _each(_LAYERS | _each(_LAYERS)),
    "reverse_transformer_layers_per_block": _NULL | _each(_LAYERS | _each(_LAYERS)),
    "cross_attention_dim": _WIDTH | _each(_WIDTH),
    "attention_head_dim": _WIDTH | _each(_WIDTH),
    "num_attention_heads": _NULL | _WIDTH | _each(_WIDTH),
    "norm_num_groups": _NULL | _WIDTH,
    "norm_eps": _number(0, 1),
    "act_fn": _ACTIVATION,
    "dropout": _number(0, 1),
    "downsample_padding": _whole(0, 8),
    "mid_block_scale_factor": _number(1e-6, 1e6),
    "resnet_out_scale_factor": _number(1e-6, 1e6),
    "only_cross_attention": _FLAG | _each(_FLAG),
    "dual_cross_attention": _FLAG,
    "use_linear_projection": _FLAG,
    "upcast_attention": _FLAG | _NULL,
    "conv_in_kernel": _whole(1, 15),
    "conv_out_kernel": _whole(1, 15),
    "time_embedding_dim": _NULL | _WIDTH,
    "time_cond_proj_dim": _NULL | _WIDTH,
    "resnet_time_scale_shift": _one_of("default", "scale_shift"),
    "time_embedding_type": _USUAL,
    "attention_type": _USUAL,
    "class_embed_type": _ABSENT,
    "num_class_embeds": _ABSENT,
    "class_embeddings_concat": _ABSENT,
    "addition_embed_type": _ABSENT,
    "encoder_hid_dim": _ABSENT,
    "encoder_hid_dim_type": _ABSENT,
}

_VAE: dict[str, Rule] = {
    "in_channels": _whole(3, 3),
    "out_channels": _whole(3, 3),
    "latent_channels": _whole(1, 256),
    "block_out_channels": _each(_WIDTH),
    "down_block_types": _each(_one_of("DownEncoderBlock2D", "AttnDownEncoderBlock2D")),
    "up_block_types": _each(_one_of("UpDecoderBlock2D", "AttnUpDecoderBlock2D")),
    "layers_per_block": _LAYERS,
    "norm_num_groups": _WIDTH,
    "act_fn": _ACTIVATION,
    "sample_size": _whole(1, 1 << 14) | _NULL,
    "scaling_factor": _number(1e-6, 1e6),
    "shift_factor": _NULL | _number(-1e6, 1e6),
    "use_quant_conv": _FLAG,
    "use_post_quant_conv": _FLAG,
    "mid_block_add_attention": _FLAG,
    "force_upcast": _FLAG,
}

_TINY: dict[str, Rule] = {
    "in_channels": _whole(3, 3),
    "out_channels": _whole(3, 3),
    "latent_channels": _whole(1, 256),
    "encoder_block_out_channels": _each(_WIDTH),
    "decoder_block_out_channels": _each(_WIDTH),
    "block_out_channels": _each(_WIDTH),
    "num_encoder_blocks": _each(_LAYERS),
    "num_decoder_blocks": _each(_LAYERS),
    "act_fn": _ACTIVATION,
    "upsample_fn": _one_of("nearest", "bilinear"),
    "upsampling_scaling_factor": _whole(2, 2),
    "latent_magnitude": _number(1e-6, 1e6),
    "latent_shift": _number(-1e6, 1e6),
    "scaling_factor": _number(1e-6, 1e6),
    "shift_factor": _NULL | _number(-1e6, 1e6),
    "force_upcast": _FLAG,
}

_TOWER: dict[str, Rule] = {
    "hidden_size": _WIDTH,
    "intermediate_size": _whole(1, 1 << 16),
    "projection_dim": _NULL | _WIDTH,
    "num_hidden_layers": _whole(1, 64),
    "num_attention_heads": _whole(1, 256),
    "hidden_act": _ACTIVATION,
    "layer_norm_eps": _number(0, 1),
    "attention_dropout": _number(0, 1),
    "initializer_range": _number(0, 1e3),
    "initializer_factor": _number(0, 1e3),
    "dropout": _number(0, 1),
}

CLIP_TEXT: dict[str, Rule] = {
    **_TOWER,
    "vocab_size": _whole(2, 1 << 20),
    "max_position_embeddings": _whole(3, 1 << 12),
    "pad_token_id": _NULL | _whole(-1, 1 << 20),
    "bos_token_id": _NULL | _whole(-1, 1 << 20),
    "eos_token_id": _NULL | _whole(-1, 1 << 20),
    "use_attention_mask": _FLAG,
}
"""Of a CLIP's text encoder. What is not listed here is not read."""

CLIP_VISION: dict[str, Rule] = {
    **_TOWER,
    "image_size": _whole(1, 1 << 12),
    "patch_size": _whole(1, 1 << 10),
    "num_channels": _whole(3, 3),
}

CLIP_WHOLE: dict[str, Rule] = {"projection_dim": _WIDTH, "logit_scale_init_value": _number(-100, 100)}
"""Of a whole CLIP, beside those of its text encoder and of its vision tower."""

_TIMES = _whole(1, 10_000)
_BETA = _number(0, 1)

_SCHEDULER: dict[str, Rule] = {
    "num_train_timesteps": _TIMES,
    "beta_start": _BETA,
    "beta_end": _BETA,
    "trained_betas": _NULL | _each(_BETA, 10_000),
    "prediction_type": _one_of("epsilon", "v_prediction", "sample", "flow_prediction"),
    "steps_offset": _whole(0, 10_000),
    "solver_order": _whole(1, 3),
    "original_inference_steps": _TIMES,
    "timestep_scaling": _number(0, 1e5),
    "shift": _number(1e-3, 1e3),
    "lambda_min_clipped": Rule("a number", lambda v: isinstance(v, (int, float)) and v < 1e5),
}

RULES: Mapping[str, Mapping[str, Rule]] = {
    "UNet2DConditionModel": _UNET,
    "AutoencoderKL": _VAE,
    "AutoencoderTiny": _TINY,
    "CLIPTextModel": CLIP_TEXT,
    "scheduler": _SCHEDULER,
}
"""A class, or "scheduler" for all of them -> its settings and what they may be."""

_LISTED = ("CLIPTextModel",)
"""Classes of transformers, of whose many settings only the listed ones are read."""

_QUANTIZED = ("quantization_config", "compression_config")


def read_config(folder: Path, part: str, file: str, kind: str, *, scheduler: bool = False) -> dict[str, Any]:
    """The settings of `folder`/`part`/`file` for the class `kind`, in bounds; private ones are left out.

    UnlikenessError, naming the file, the setting and what it must be; UsageError for code or quantized
    weights.
    """
    path = folder / part / file
    config = read_object(path, folder, infinite=scheduler)  # some samplers clip at -Infinity, which is none
    for key in _QUANTIZED:
        if config.get(key) is not None:
            raise UsageError(
                f"{path} has a {key}: quantized weights are not read; give the model in float16 or float32"
            )
    named = config.get("_class_name", kind)
    if named != kind and not scheduler:  # a scheduler may have been exchanged in the index alone
        raise UnlikenessError(
            f"{path} is of a {one_line(str(named))[:60]}, and model_index.json names a {kind}; "
            "fetch or save the model again"
        )
    rules = RULES["scheduler" if scheduler else kind]
    listed = kind in _LISTED
    clean = {k: v for k, v in config.items() if (k in rules if listed else not k.startswith("_"))}
    check(clean, rules, path)
    return clean


def check(config: Mapping[str, Any], rules: Mapping[str, Rule], path: Path, within: str = "") -> None:
    """UnlikenessError, naming the first setting that is out of bounds. within: what it lies in, and a dot."""
    for key, value in config.items():
        rule = rules.get(key, _ANY)
        if not rule.holds(value):
            shown = one_line(repr(value))
            shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
            must = rule.said if key in rules else "a short text, a number up to 100000 or a short list"
            raise UnlikenessError(
                f"{path} has {within}{one_line(key)[:60]} = {shown}, which must be {must}; "
                "fetch or save the model again"
            )
