"""What a text-to-image model is to us: load, save, encode, embed, add noise, the target, generate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up

if TYPE_CHECKING:
    from unlikeness.diffusion.latents import Posterior
    from unlikeness.diffusion.loss import diffusion_loss, draw
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import NoiseSchedule

__all__ = ["NoiseSchedule", "Posterior", "TextToImage", "diffusion_loss", "draw"]

__getattr__ = looked_up(
    __name__,
    {
        "latents": ("Posterior",),
        "loss": (
            "diffusion_loss",
            "draw",
        ),
        "model": ("TextToImage",),
        "schedule": ("NoiseSchedule",),
    },
)
