"""The diffusion loss L_diff, which personalization and protection share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.autoencoders import randn

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage

__all__ = ["at_once", "diffusion_loss", "draw", "mean_loss_over_levels"]

_AT_ONCE = 4 * 64 * 64 * 16
"""Latent values in a call of the denoiser that keeps no graph: 16 pictures of 512 px."""

DRAWS = 4
"""Draws of ε a picture and noise level in `mean_loss_over_levels`."""


def at_once(shape: Sequence[int]) -> int:
    """How many latents of this shape (C, h, w) one call of the denoiser may have without a graph."""
    return max(_AT_ONCE // math.prod(shape), 1)


def draw(model: TextToImage, z0: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """(t long [B], ε like z0), on z0's device, in this order from `generator`."""
    device = generator.device if generator is not None else z0.device
    t = model.schedule.draw(len(z0), generator, device).to(z0.device)
    return t, randn(tuple(z0.shape), z0, generator)


def diffusion_loss(
    model: TextToImage,
    z0: Tensor,
    c: Condition,
    *,
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
    reduce: Literal["mean", "none"] = "mean",
) -> Tensor:
    """w(t) · ‖f_θ(z_t, t, c) − target(z0, ε, t)‖², the mean over elements (Ho et al. 2020, Eq. 14).

    w is the schedule's weight, 1 for most models.

    z0: [B, C, h, w] normalised latents; c: of B prompts, or of one (then the same for all).
    t: long [B]; eps: like z0. Each one that is not given is drawn from `generator`.
    reduce: "mean" gives a scalar, "none" one mean per picture, [B]. The result is float32 at least, whatever
    the model's dtype.
    """
    if t is None or eps is None:
        drawn_t, drawn_eps = draw(model, z0, generator)
        t = drawn_t if t is None else t
        eps = drawn_eps if eps is None else eps
    if len(c) == 1:
        c = c.expand(len(z0))
    f = model.predict(model.schedule.add_noise(z0, eps, t), t, c)
    wide = torch.promote_types(f.dtype, torch.float32)
    error = (f.to(wide) - model.schedule.target(z0, eps, t).to(wide)).square()
    weight = model.schedule.weight(t)
    if weight is not None:
        error = error * weight.to(error).view(-1, *[1] * (error.ndim - 1))
    return error.mean() if reduce == "mean" else error.flatten(1).mean(1)


@torch.no_grad()
def mean_loss_over_levels(
    model: TextToImage, images: Tensor, prompt: str, *, seed: int, levels: int = 50, draws: int = DRAWS
) -> float:
    """The frozen model's diffusion loss on images [B, 3, H, W] in [0, 1], mean over pictures, t and ε.

    t takes `levels` evenly spaced values, each with `draws` draws of ε a picture. ε comes from `seed` alone:
    a picture and its protected copy meet the same noise. The denoiser sees a bounded number
    of pictures at once. NotFiniteError if the loss is NaN or infinite.
    """
    z0 = model.encode_all(images).mean.repeat(draws, 1, 1, 1)
    c = model.condition([prompt])
    generator = torch.Generator().manual_seed(seed)
    most = at_once(z0.shape[1:])
    total = 0.0
    for level in torch.linspace(0, model.schedule.steps - 1, levels).round().tolist():
        eps = torch.randn(z0.shape, generator=generator).to(z0)
        for some, noise in zip(torch.split(z0, most), torch.split(eps, most), strict=True):
            t = torch.full((len(some),), int(level), device=z0.device)
            total += float(diffusion_loss(model, some, c, t=t, eps=noise)) * (len(some) / len(z0))
    if not math.isfinite(total):
        raise finite.not_finite(finite.DENOISER, model.dtype)
    return total / levels
