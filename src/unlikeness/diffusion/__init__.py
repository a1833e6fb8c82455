"""A text-to-image model in four words: Autoencoder, Condition, denoiser, Schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.loss import diffusion_loss, draw
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import Schedule

__all__ = ["Condition", "Schedule", "TextToImage", "diffusion_loss", "draw"]

__getattr__ = looked_up(
    __name__,
    {
        "condition": ("Condition",),
        "loss": ("diffusion_loss", "draw"),
        "model": ("TextToImage",),
        "schedule": ("Schedule",),
    },
)
