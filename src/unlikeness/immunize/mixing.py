"""Less than the whole change: weights between those of before and the trained ones.

    θ_released = θ_before + strength · (θ_trained − θ_before)

As in WiSE-FT (Wortsman et al. 2022), where weights between a model's and its fine-tune's keep most of what
was learnt and lose less of what was there. Here a notice that every fine-tune shows can be had at a smaller
price for the class and for others. Nothing is trained again: a finished run's checkpoint does for any
strength.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from unlikeness.diffusion.lora import merged_copy

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["mix"]


@torch.no_grad()
def mix(trained: TextToImage, before: TextToImage, strength: float) -> TextToImage:
    """`trained` with its U-Net's weights moved back towards those of `before`, in place; returns it.

    strength: share of the change that stays, from 0, `before` (with adapters merged), to 1, `trained`.
    """
    if strength < 1:
        origin = dict(merged_copy(before).unet.named_parameters())
        for name, p in trained.unet.named_parameters():
            p.lerp_(origin[name].to(p), 1 - strength)
    return trained
