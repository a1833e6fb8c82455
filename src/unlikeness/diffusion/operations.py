"""What a pass through a denoiser costs, before its weights are loaded: a rough time from the configuration.

Operations are counted on torch's meta device, where tensors have sizes and no values. The speed is that of a
matrix product on this machine, which no model reaches.
"""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from unlikeness.diffusion.model import TextToImage

__all__ = ["operations", "speed"]

_SIDE = {"cpu": 1024}
_SECONDS = 0.3


@torch.no_grad()
def operations(outline: TextToImage) -> float:
    """Operations (a product and a sum count two) of one picture's forward pass through the denoiser, at the
    model's own resolution. outline: `diffusion.outline.outline`."""
    z_t = torch.empty(1, *outline.latent_shape, device="meta")
    condition = outline.conditioner.encode([""]).to(torch.device("meta"))
    with FlopCounterMode(display=False) as counter:
        outline.predict(z_t, torch.zeros(1, dtype=torch.long, device="meta"), condition)
    return float(counter.get_total_flops())


def speed(device: torch.device, precision: str) -> float:
    """Operations a second of a large matrix product. precision: "float32" or "bfloat16"."""
    side = _SIDE.get(device.type, 8192)
    one = torch.ones(side, side, device=device, dtype=getattr(torch, precision))
    one @ one
    _wait(device)
    began, products = time.perf_counter(), 0
    while products < 2 or time.perf_counter() - began < _SECONDS:
        one @ one
        _wait(device)
        products += 1
    return 2 * side**3 * products / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
