"""Bounds of a network's configuration, so that building it takes bounded time and memory.

The bounds are far beyond any published model. The shapes that a value leads to are checked against the file
of weights (`building.fill`). Whether the parts of a model fit together is tried (`diffusion.loading`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import LARGEST, UnreadableError, read_json
from unlikeness.networks.quantized import READ, unread

__all__ = [
    "ACTIVATION", "CLIP_TEXT", "CLIP_VISION", "CLIP_WHOLE", "CODE", "FLAG", "LAYERS", "NULL", "SCHEDULER",
    "SIDE", "T5_TEXT", "WIDTH", "Rule", "check", "each", "number", "of_transformers", "one_of", "read_config",
    "read_object", "whole",
]  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """said: what a value must be, as in "must be a whole number from 1 to 8"."""

    said: str
    holds: Callable[[Any], bool]

    def __or__(self, other: Rule) -> Rule:
        return Rule(f"{self.said} or {other.said}", lambda v: self.holds(v) or other.holds(v))


def whole(low: int, high: int) -> Rule:
    return Rule(
        f"a whole number from {low} to {high}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
    )


def number(low: float, high: float) -> Rule:
    return Rule(
        f"a number from {low:g} to {high:g}",
        lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high,
    )


def one_of(*words: str) -> Rule:
    return Rule(f"one of {', '.join(words)}", lambda v: isinstance(v, str) and v in words)


def each(rule: Rule, most: int = 8, least: int = 1) -> Rule:
    return Rule(
        f"a list of up to {most}, each {rule.said}",
        lambda v: isinstance(v, list) and least <= len(v) <= most and all(map(rule.holds, v)),
    )


NULL = Rule("null", lambda v: v is None)
FLAG = Rule("true or false", lambda v: isinstance(v, bool))
_WORD = Rule("a short text", lambda v: isinstance(v, str) and len(v) <= 64)
WIDTH = whole(1, 1 << 14)
LAYERS = whole(1, 32)
_PLAIN = _WORD | FLAG | NULL | number(-1e5, 1e5)
_ANY = _PLAIN | each(_PLAIN | each(_PLAIN, 16, 0), 16, 0)
"""Of settings that are not listed: they change little, and must not be large."""

ACTIVATION = one_of("silu", "swish", "mish", "gelu", "relu", "quick_gelu", "gelu_new", "gelu_pytorch_tanh")
SIDE = whole(1, 1024)

_TOWER: dict[str, Rule] = {
    "hidden_size": WIDTH,
    "intermediate_size": whole(1, 1 << 16),
    "projection_dim": NULL | WIDTH,
    "num_hidden_layers": whole(1, 64),
    "num_attention_heads": whole(1, 256),
    "hidden_act": ACTIVATION,
    "layer_norm_eps": number(0, 1),
    "attention_dropout": number(0, 1),
    "initializer_range": number(0, 1e3),
    "initializer_factor": number(0, 1e3),
    "dropout": number(0, 1),
}

CLIP_TEXT: dict[str, Rule] = {
    **_TOWER,
    "vocab_size": whole(2, 1 << 20),
    "max_position_embeddings": whole(3, 1 << 12),
    "pad_token_id": NULL | whole(-1, 1 << 20),
    "bos_token_id": NULL | whole(-1, 1 << 20),
    "eos_token_id": NULL | whole(-1, 1 << 20),
    "use_attention_mask": FLAG,
}
"""Of a CLIP's text encoder. What is not listed here is not read."""

CLIP_VISION: dict[str, Rule] = {
    **_TOWER,
    "image_size": whole(1, 1 << 12),
    "patch_size": whole(1, 1 << 10),
    "num_channels": whole(3, 3),
}

CLIP_WHOLE: dict[str, Rule] = {"projection_dim": WIDTH, "logit_scale_init_value": number(-100, 100)}
"""Of a whole CLIP, beside those of its text encoder and of its vision tower."""

T5_TEXT: dict[str, Rule] = {
    "vocab_size": whole(2, 1 << 20),
    "d_model": WIDTH,
    "d_kv": whole(1, 1 << 10),
    "d_ff": whole(1, 1 << 16),
    "num_layers": whole(1, 64),
    "num_heads": whole(1, 256),
    "relative_attention_num_buckets": whole(2, 1 << 10),
    "relative_attention_max_distance": whole(2, 1 << 14),
    "dropout_rate": number(0, 1),
    "layer_norm_epsilon": number(0, 1),
    "feed_forward_proj": one_of("relu", "gated-gelu", "gated-silu", "gelu"),
}
"""Of T5's encoder. What is not listed here is not read."""

_TIMES = whole(1, 10_000)
_BETA = number(0, 1)

SCHEDULER: dict[str, Rule] = {
    "num_train_timesteps": _TIMES,
    "beta_start": _BETA,
    "beta_end": _BETA,
    "trained_betas": NULL | each(_BETA, 10_000),
    "prediction_type": one_of("epsilon", "v_prediction", "sample", "flow_prediction"),
    "steps_offset": whole(0, 10_000),
    "solver_order": whole(1, 3),
    "original_inference_steps": _TIMES,
    "timestep_scaling": number(0, 1e5),
    "shift": number(1e-3, 1e3),
    **dict.fromkeys(("base_shift", "max_shift"), NULL | number(-1e5, 1e5)),
    **dict.fromkeys(("base_image_seq_len", "max_image_seq_len"), NULL | number(0, 1 << 24)),
    "shift_terminal": NULL | number(0, 1),
    "time_shift_type": one_of("exponential", "linear"),
    **dict.fromkeys(
        (
            "use_dynamic_shifting", "invert_sigmas", "stochastic_sampling", "use_karras_sigmas",
            "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas", "rescale_betas_zero_snr",
        ),
        NULL | FLAG,
    ),
    "lambda_min_clipped": Rule("a number", lambda v: isinstance(v, (int, float)) and v < 1e5),
}
"""Of every scheduler."""

CODE = ("auto_map", "custom_pipeline", "custom_code", "trust_remote_code")
"""Settings that lead to code in a model's folder."""

_QUANTIZED = ("quantization_config", "compression_config")


def read_object(path: Path, folder: Path, *, most: int = LARGEST, infinite: bool = False) -> dict[str, Any]:
    """A JSON object of a model's folder. UnlikenessError, naming the file, for anything else; UsageError for
    a setting that leads to code. most [bytes] and infinite: see `foreign.read_json`."""
    try:
        content = read_json(path, folder=folder, most=most, infinite=infinite)
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch or save the model again") from error
    if not isinstance(content, dict):
        raise UnlikenessError(f"{path} is not a JSON object; fetch or save the model again")
    for key in CODE:
        if content.get(key):
            raise UsageError(
                f"{path} names code of its own ({key}), which is never run; give a model without it"
            )
    return content


def read_config(
    folder: Path, part: str, file: str, kind: str, rules: Mapping[str, Rule], *, scheduler: bool = False
) -> dict[str, Any]:
    """The settings of `folder`/`part`/`file` for the class `kind`, within `rules`; private ones are left out.

    Of the many settings of a class of transformers only those with a rule are read. UnlikenessError, naming
    the file, the setting and what it must be; UsageError for code or quantized weights.
    """
    path = folder / part / file
    config = read_object(path, folder, infinite=scheduler)  # some samplers clip at -Infinity, which is none
    _check_quantized(config, f"the {part or kind} in {path}")
    named = config.get("_class_name", kind)
    if named != kind and not scheduler:  # a scheduler may have been exchanged in the index alone
        raise UnlikenessError(
            f"{path} is of a {one_line(str(named))[:60]}, and model_index.json names a {kind}; "
            "fetch or save the model again"
        )
    listed = of_transformers(kind)
    clean = {k: v for k, v in config.items() if (k in rules if listed else not k.startswith("_"))}
    check(clean, rules, path)
    return clean


def of_transformers(kind: str) -> bool:
    """Whether a class of this name is transformers', and not diffusers'."""
    import transformers

    return hasattr(transformers, kind)


def _check_quantized(config: dict[str, Any], what: str) -> None:
    """UsageError, about `what`, for a quantization that is not read; the setting of another is taken out."""
    for key in _QUANTIZED:
        how = config.pop(key, None)
        if how is None:
            continue
        how = how if isinstance(how, dict) else {}
        usual = READ if how.get("load_in_4bit") or how.get("load_in_8bit") else key
        if (method := str(how.get("quant_method", usual))) != READ:
            raise unread(what, method)


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
