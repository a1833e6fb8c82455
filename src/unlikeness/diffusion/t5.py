"""T5 as a text encoder of a text-to-image model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unlikeness.diffusion.condition import Conditioner

__all__ = ["T5Conditioner", "encode_t5"]


class T5Conditioner(Conditioner):
    """A conditioner with a T5 among its encoders.

    In float16 T5's second feed-forward layers (wo) stay float32, as in transformers: they would overflow.
    """

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().to(device, dtype)
        for encoder in self.encoders.values():
            for name, layer in encoder.named_modules():
                if name.endswith(".DenseReluDense.wo") and layer.weight.dtype == torch.float16:
                    layer.float()


def encode_t5(encoder: Any, tokenizer: Any, prompts: Sequence[str], most: int) -> Tensor:
    """T5's last hidden state [B, L, D] of these prompts, padded and cut to L = `most` tokens, or to the
    tokenizer's own length where that is less. As in diffusers' pipelines, padding is read too."""
    read = tokenizer(
        list(prompts), padding="max_length", max_length=min(most, tokenizer.model_max_length),
        truncation=True, return_tensors="pt",
    )  # fmt: skip
    tokens: Tensor = encoder(read.input_ids.to(encoder.device))[0]
    return tokens
