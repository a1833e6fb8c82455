"""How much a subject's pictures pull at a model: the gradient that personalization would follow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.diffusion.loss import diffusion_loss

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["gradient_norm"]


def gradient_norm(
    model: TextToImage, images: Tensor, prompt: str, *, seed: int, levels: int = 20
) -> tuple[float, float]:
    """(‖E[g]‖, sqrt(E‖g − E[g]‖²)) of g = ∇_θ L_diff(picture, t, ε) over the U-Net's weights: pull and noise.

    PersGuard's mechanism is that the pull of a protected subject is small in the released model. An optimizer
    that divides by the gradient's own size, as Adam does, goes by the ratio of the two rather than by the
    first alone. Both are of one sample: a picture at one of `levels` evenly spaced t, at an ε from `seed`.
    The noise in the mean of the samples is taken out of the first figure, which is 0 where that is all there
    is. As the pictures and t are the same in every run, and their differences count as noise here, that
    takes out a little too much.

    images: [B, 3, H, W] in [0, 1]. The model's weights and their gradients are left as they were.
    NotFiniteError if a gradient is NaN or infinite.
    """
    z0 = model.encode_all(images).mean
    c = model.condition([prompt])
    generator = torch.Generator().manual_seed(seed)
    weights = list(model.denoiser.parameters())
    wanted = [p.requires_grad for p in weights]
    total = [torch.zeros_like(p, dtype=torch.float32) for p in weights]
    squares, count = 0.0, 0
    model.denoiser.requires_grad_(True)
    try:
        for level in torch.linspace(0, model.schedule.steps - 1, levels).round().tolist():
            t = torch.tensor([int(level)], device=z0.device)
            for picture in torch.split(z0, 1):
                eps = torch.randn(picture.shape, generator=generator).to(picture)
                loss = diffusion_loss(model, picture, c, t=t, eps=eps)
                for sum_, g in zip(total, torch.autograd.grad(loss, weights), strict=True):
                    sum_ += g
                    squares += float(g.float().square().sum())
                count += 1
    finally:
        for p, flag in zip(weights, wanted, strict=True):
            p.requires_grad_(flag)
    if not math.isfinite(squares):
        raise finite.not_finite(finite.GRADIENT, model.dtype)
    of_mean = sum(float((sum_ / count).square().sum()) for sum_ in total)
    variance = max(squares / count - of_mean, 0.0) * count / max(count - 1, 1)
    return max(of_mean - variance / count, 0.0) ** 0.5, variance**0.5
