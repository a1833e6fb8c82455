"""The small convolutional network behind the classifier and the identity encoder."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlikeness.errors import NotFiniteError
from unlikeness.tensors import all_finite, save_tensors

WIDTHS = (32, 64, 128, 192)


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; halves the side."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1)
        self.norm1 = nn.GroupNorm(8, width_out)
        self.conv = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, width_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.down(x)))
        return F.relu(x + self.norm2(self.conv(x)))


class ConvNet(nn.Module):
    """[B, 3, 64, 64] in [0, 1] -> features [B, 192]: the mean over places of the last of four halvings."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip((3, *WIDTHS), WIDTHS, strict=False)))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(images * 2 - 1).mean((2, 3))
        return features


def save_half(module: nn.Module, path: Path) -> None:
    """Write a module's weights in half precision, safetensors, moved into place.

    UnlikenessError if they cannot be written; NotFiniteError, with nothing written, if one is not finite.
    """
    weights = {name: value.half().contiguous() for name, value in module.state_dict().items()}
    if not all_finite(weights.values()):
        raise NotFiniteError(f"{path} is not written: its weights are not finite; lower the learning rate")
    save_tensors(weights, path)


def load_float(module: nn.Module, path: Path) -> None:
    """Read what `save_half` wrote; the module is frozen and in evaluation mode afterwards."""
    from safetensors.torch import load_file

    weights = {name: value.float() for name, value in load_file(path).items()}
    if not all_finite(weights.values()):  # the most likely of classes that are no numbers would be the first
        raise NotFiniteError(f"{path} has weights that are not finite (NaN or infinity); install it again")
    module.load_state_dict(weights)
    module.eval().requires_grad_(False)


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """What a generated picture may differ by from a render: softness, noise, light. Same shape."""
    count = len(images)

    def per_picture(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    soft = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    mix = per_picture(0, 1) * (per_picture(0, 1) < 0.5)
    images = images * (1 - mix) + soft * mix
    images = images * per_picture(0.92, 1.08) + per_picture(-0.03, 0.03)
    noise = torch.randn(images.shape, generator=generator)
    return (images + per_picture(0, 0.06) * noise).clamp(0, 1)
