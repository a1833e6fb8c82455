"""Pictures at the size that a model or an encoder expects, as training scripts resize them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["at_side", "at_size", "viewed"]


def viewed(images: Tensor, resolution: int) -> Tensor:
    """[B, 3, H, W] resized (bilinear, antialiased) until the short side is `resolution`; differentiable."""
    height, width = images.shape[-2:]
    if min(height, width) == resolution:
        return images
    factor = resolution / min(height, width)
    size = (round(height * factor), round(width * factor))
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def at_side(images: Tensor, side: int) -> Tensor:
    """[B, 3, side, side] in [0, 1], resampled (bicubic, antialiased) from another size."""
    return at_size(images, (side, side))


def at_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, 3, *size] in [0, 1], resampled as by `at_side`."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)
