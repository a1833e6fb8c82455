"""T5's encoder, which reads prompts for flow-matching models: the bounds of its settings, and building it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from unlikeness.networks.configs import WIDTH, Rule, number, one_of, whole

__all__ = ["T5_TEXT", "t5_encoder"]

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


def t5_encoder(config: Mapping[str, Any]) -> nn.Module:
    """transformers' T5EncoderModel with these settings (from `configs.read_config`)."""
    import transformers

    floats = {"layer_norm_epsilon": float(config.get("layer_norm_epsilon", 1e-6))}
    encoder: nn.Module = transformers.T5EncoderModel(transformers.T5Config(**{**config, **floats}))
    return encoder
