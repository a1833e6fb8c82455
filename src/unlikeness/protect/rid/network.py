"""Our own perturbation network: compact, for pictures of any size, with the budget as an input.

    δ = budget · tanh(net(x, budget))

RID (arXiv 2412.09844, section 4) uses a vision transformer of 343 million parameters at a fixed 512 × 512.
Ours is a small convolutional network with three levels on blocks of 4 × 4 pixels (space to depth). Its cost
grows with the number of pixels. A pixel's perturbation depends only on its neighbourhood, so a picture can be
cut into tiles; for the same reason there is no normalization over the picture. The budget is a plane beside
the colours. It may differ from pixel to pixel, as with a mask.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlikeness.protect.rid.settings import (
    BLOCK,
    HIDING,
    LARGEST_BUDGET,
    LEAST_CONTRAST,
    MULTIPLE,
    NetworkSettings,
)

__all__ = ["LARGEST_BUDGET", "MULTIPLE", "NetworkSettings", "Protector"]


class _Residual(nn.Module):
    """x + conv(SiLU(conv(SiLU(x)))). The last convolution starts at zero."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        nn.init.zeros_(self.second.weight)
        if bias:
            nn.init.zeros_(cast(Tensor, self.second.bias))

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.second(F.silu(self.first(F.silu(x)))))


def _residuals(width: int, count: int, bias: bool) -> nn.Sequential:
    return nn.Sequential(*(_Residual(width, bias) for _ in range(count)))


class Protector(nn.Module):
    """The network. One that sees colours starts with δ = 0 everywhere.

    It takes pictures of any size from 1 px. A pixel depends on up to 135 px around it, 247 with two `blocks`.
    """

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or NetworkSettings()
        bias = s.sees == "colours"
        self.enter = nn.Conv2d((4 if bias else 3) * BLOCK**2, s.fine, 3, padding=1, bias=bias)
        self.down_fine = _residuals(s.fine, s.blocks, bias)
        self.to_middle = nn.Conv2d(s.fine, s.middle, 2, stride=2, bias=bias)
        self.down_middle = _residuals(s.middle, s.blocks, bias)
        self.to_coarse = nn.Conv2d(s.middle, s.coarse, 2, stride=2, bias=bias)
        self.bottom = _residuals(s.coarse, 2 * s.blocks, bias)
        self.from_coarse = nn.ConvTranspose2d(s.coarse, s.middle, 2, stride=2, bias=bias)
        self.up_middle = _residuals(s.middle, s.blocks, bias)
        self.from_middle = nn.ConvTranspose2d(s.middle, s.fine, 2, stride=2, bias=bias)
        self.up_fine = _residuals(s.fine, s.blocks, bias)
        self.leave = nn.Conv2d(s.fine, 3 * BLOCK**2, 3, padding=1, bias=bias)
        if bias:
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(cast(Tensor, self.leave.bias))
        else:  # the latents' displacement has no gradient at δ = 0
            nn.init.normal_(self.leave.weight, std=0.02)

    def forward(self, images: Tensor, budget: Tensor) -> Tensor:
        """The perturbation δ, [B, 3, H, W], nowhere beyond the budget; images + δ may leave [0, 1].

        Args:
            images: [B, 3, H, W] in [0, 1].
            budget: n/255, [B], or a plane [B, 1, H, W] of the budget at each pixel.
        """
        if budget.ndim == 1:
            budget = budget[:, None, None, None].expand(-1, 1, *images.shape[-2:])
        plane = budget.to(images)
        return self.unit(torch.cat([2 * images - 1, plane / LARGEST_BUDGET], 1)) * (plane / 255)

    def unit(self, seen: Tensor) -> Tensor:
        """tanh(net) in [-1, 1], [B, 3, H, W], of 2x - 1 and the budget plane over 16/255, [B, 4, H, W]."""
        height, width = seen.shape[-2:]
        below, right = -height % MULTIPLE, -width % MULTIPLE
        if below or right:
            seen = mirrored(seen, height + below, width + right)
        blocks, gate = F.pixel_unshuffle(seen, BLOCK), None
        if self.settings.sees == "detail":
            blocks, gate = detail(blocks[:, : 3 * BLOCK**2])
        x = self.enter(blocks)
        fine = self.down_fine(x)
        middle = self.down_middle(self.to_middle(fine))
        coarse = self.bottom(self.to_coarse(middle))
        middle = self.up_middle(middle + self.from_coarse(coarse))
        fine = self.up_fine(fine + self.from_middle(middle))
        out = torch.tanh(self.leave(F.silu(fine)))
        out = F.pixel_shuffle(out if gate is None else out * gate, BLOCK)
        return out[:, :, :height, :width]


def detail(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How pixels differ from their neighbourhood's mean, over the contrast there; and where change is hidden.

    blocks: [B, 3 · BLOCK², h, w], colours of 2x - 1 with the pixels of a block in a row, as `pixel_unshuffle`
    gives them. The neighbourhood is 3 × 3 blocks, cut at the picture's border.

    Returns: the first, of the same shape; and [B, 1, h, w] in [0, 1], near 0 in flat areas.
    """
    count, channels, height, width = blocks.shape
    pixels = blocks.reshape(count, 3, channels // 3, height, width)
    deviation = pixels - _around(pixels.mean(2))[:, :, None]
    contrast = _around(deviation.square().mean((1, 2))[:, None])
    seen = deviation / (contrast + LEAST_CONTRAST**2).sqrt()[:, None]
    return seen.reshape(blocks.shape), contrast / (contrast + HIDING**2)


def _around(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def mirrored(images: Tensor, height: int, width: int) -> Tensor:
    """Images [B, C, H, W] mirrored at their lower and right border until they have this size."""
    for dim, size in ((2, height), (3, width)):
        while images.shape[dim] < size:
            more = min(images.shape[dim], size - images.shape[dim])
            part = images.narrow(dim, images.shape[dim] - more, more)
            images = torch.cat([images, part.flip(dim)], dim)
    return images
