"""Errors for NaN and infinity where they arise. Signs, clamps, averages and files take them silently.

A check waits for the GPU. So checks stand where a result is kept or written, not in every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlikeness.errors import NotFiniteError
from unlikeness.tensors import all_finite

__all__ = ["all_finite", "check", "not_finite", "remedy"]

DECODER = "the autoencoder's decoder"
DENOISER = "the denoiser"
ENCODER = "the autoencoder's encoder"
TEXT_ENCODER = "the text encoder"
GRADIENT = "the gradient through the model"


def check(values: Tensor, part: str, dtype: torch.dtype) -> Tensor:
    """`values`, if all are finite; else NotFiniteError, which names the part and its precision."""
    if not all_finite([values]):
        raise not_finite(part, dtype)
    return values


def not_finite(part: str, dtype: torch.dtype) -> NotFiniteError:
    """The error for a part of a model whose output is not finite."""
    return NotFiniteError(f"{part} gives values that are not finite (NaN or infinity){remedy(dtype)}")


def remedy(dtype: torch.dtype) -> str:
    """The end of a message that says "... are not finite": the likely reason, and what may help."""
    name = str(dtype).removeprefix("torch.")
    if torch.finfo(dtype).bits < 32:
        return f" in {name}; --dtype float32 may help"
    return f" in {name}: its weights are damaged, or a training has diverged; fetch or make the model again"
