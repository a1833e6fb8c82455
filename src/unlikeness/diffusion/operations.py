"""The time of a training before its weights are loaded: roughly, from operations and the machine's speed.

Operations are counted on torch's meta device, where tensors have sizes and no values. The speed is that of a
matrix product, which no model reaches.
"""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from unlikeness.diffusion.model import TextToImage
from unlikeness.progress import format_seconds

__all__ = ["operations", "rough_time", "speed"]

_SIDE = 1024
"""Rows of the matrices on a CPU; a GPU needs larger ones."""

_SECONDS = 0.3


@torch.no_grad()
def operations(outline: TextToImage) -> float:
    """Operations (a product and a sum are two) of one picture's forward pass through the denoiser, at the
    model's own resolution. outline: `diffusion.opening.outline`."""
    meta = torch.device("meta")
    z_t = torch.empty(1, *outline.latent_shape, device=meta)
    condition = outline.conditioner.outline()
    with FlopCounterMode(display=False) as counter:
        outline.predict(z_t, torch.zeros(1, dtype=torch.long, device=meta), condition)
    return float(counter.get_total_flops())


def speed(device: torch.device, precision: str) -> float:
    """Operations a second of a large matrix product. precision: "float32" or "bfloat16"."""
    side = _SIDE if device.type == "cpu" else 8 * _SIDE
    one = torch.ones(side, side, device=device, dtype=getattr(torch, precision))
    float((one @ one).sum())  # waits for the device
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        float((one @ one).sum())
        products += 1
    return 2 * side**3 * products / (time.perf_counter() - began)


def rough_time(
    outline: TextToImage, device: torch.device, precision: str, *, without: int, trained: int,
    frozen: bool, checkpointing: bool,
) -> str:  # fmt: skip
    """One line. without, trained: pictures that pass the denoiser without and with a gradient. frozen: only
    updates beside its weights are trained, whose backward pass costs one forward pass instead of two.
    checkpointing: the backward pass repeats the forward pass."""
    passes = without + trained * (1 + (1 if frozen else 2) + checkpointing)
    total, rate = passes * operations(outline), speed(device, precision)
    return (
        f"time, roughly: {format_seconds(total / rate)} or more ({total:.1e} operations of the denoiser, "
        f"{rate:.1e} a second in a matrix product here)"
    )
