"""Noise and denoise: a latent up to a noise level, and back by the model's own denoiser."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.seeds import derive, normal, picture_generators

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage

__all__ = ["denoised", "unconditional"]


def unconditional(model: TextToImage) -> Condition:
    """The condition without a prompt."""
    if model.family.embeds_guidance(model.denoiser):
        return model.family.with_guidance(model.condition([""]), 1.0)
    return model.condition([None])


@torch.no_grad()
def denoised(
    model: TextToImage, tile: Tensor, condition: Condition, *, levels: int, steps: int, seed: int, number: int
) -> Tensor:
    """A tile [1, 3, h, w] of the model's own resolution, noised to the `levels`-th lowest noise level and
    denoised in at most `steps` steps.

    The steps are deterministic: DDIM with η = 0 (Song et al. 2021), which is Euler's method for a flow. The
    noise depends on the seed and on the tile's number. NotFiniteError if the prediction is NaN or infinite.
    """
    schedule = model.schedule
    top = min(max(levels, 1), schedule.steps - 1) - 1
    times = sorted(set(torch.linspace(top, 0, min(steps, top + 1)).round().long().tolist()), reverse=True)
    z0 = model.encode(tile).mean.float()
    eps = normal(z0, picture_generators([derive(seed, number)]))
    at = [torch.full((1,), time, device=z0.device) for time in times]
    z = schedule.add_noise(z0, eps, at[0])
    for here, there in pairwise([*at, None]):
        assert here is not None
        z0 = schedule.predict_z0(model.predict(z, here, condition).float(), z, here)
        if there is not None:
            signal, noise = (float(table[int(here)]) for table in (schedule.signal, schedule.noise))
            z = schedule.add_noise(z0, (z - signal * z0) / noise, there)
    finite.check(z0, finite.DENOISER, model.dtype)
    return model.decode(z0)
