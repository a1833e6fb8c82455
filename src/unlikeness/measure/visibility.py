"""How visible a perturbation is: L∞, PSNR and SSIM between an original and its protected copy.

All functions take two image tensors [B,C,H,W] in [0,1] and return one float64 figure per image, [B], without
gradient. They raise `UsageError` if the shapes differ.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure.structural import SSIM_WINDOW, mean_ssim

__all__ = ["SSIM_WINDOW", "linf", "psnr", "ssim"]

def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 4 or a.shape != b.shape:
        raise UsageError(
            f"two batches of images [B,C,H,W] of one shape are needed, not {[*a.shape]} and {[*b.shape]}"
        )


@torch.no_grad()
def linf(a: Tensor, b: Tensor) -> Tensor:
    """The largest change of any channel of any pixel, in n/255: [B].

    Rounded to 1e-4 of 1/255: float32 pixels say no more, and a difference of exactly 8/255 must read 8.
    """
    _check(a, b)
    return ((a - b).abs().flatten(1).amax(1).double() * 255).round(decimals=4)


@torch.no_grad()
def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [dB], 10·log10(1 / mean squared error): [B]; inf for identical images."""
    _check(a, b)
    mse = torch.stack([(x - y).square().mean(dtype=torch.float64) for x, y in zip(a, b, strict=True)])
    return -10 * mse.log10()


@torch.no_grad()
def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity, 1 for identical images: [B], the mean over pixels and channels.

    Wang et al. 2004: Gaussian window 11 × 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, only where
    the window lies inside the image. Raises UsageError if a side is shorter than the window.
    """
    _check(a, b)
    height, width = a.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise UsageError(
            f"SSIM needs images of {SSIM_WINDOW} × {SSIM_WINDOW} px or more, not {width} × {height}"
        )
    pairs = zip(a.float().cpu().numpy(), b.float().cpu().numpy(), strict=True)
    return torch.tensor([mean_ssim(x, y) for x, y in pairs], dtype=torch.float64, device=a.device)
