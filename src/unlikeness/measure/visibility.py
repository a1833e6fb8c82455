"""How visible a perturbation is: L∞, PSNR and SSIM between an original and its protected copy.

All functions take two image tensors [B,C,H,W] in [0,1] and return one float64 figure per image, [B], without
gradient. They raise `UsageError` if the shapes differ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlikeness.errors import UsageError

__all__ = ["SSIM_WINDOW", "linf", "psnr", "ssim"]

SSIM_WINDOW = 11
"""Side of the SSIM window [px]; a smaller picture has no SSIM."""

_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
_STRIP = 64  # rows of the SSIM map at a time: bounds the memory for large pictures


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
    return torch.stack([_mean_ssim(x, y) for x, y in zip(a, b, strict=True)])


def _mean_ssim(x: Tensor, y: Tensor) -> Tensor:
    """The mean SSIM of two images [C,H,W], computed in strips of rows: a float64 scalar."""
    channels, height, width = x.shape
    border = SSIM_WINDOW - 1
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for top in range(0, height - border, _STRIP):
        rows = slice(top, top + _STRIP + border)
        total += _ssim_map(x[:, rows], y[:, rows]).sum()
    return total / (channels * (height - border) * (width - border))


def _ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """The SSIM of every full window of two images [C,H,W]: [C,H-10,W-10], float64."""
    x, y = x.double(), y.double()
    moments = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = _gaussian(_gaussian(moments, -2), -1)
    var_x, var_y, cov = xx - mean_x * mean_x, yy - mean_y * mean_y, xy - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    result: Tensor = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    )
    return result


def _gaussian(x: Tensor, dim: int) -> Tensor:
    """The Gaussian mean over every full window along `dim`, as a sum of shifted copies.

    On a CPU that is an order of magnitude faster than a one-channel `conv2d` in float64.
    """
    weights = [math.exp(-0.5 * ((k - SSIM_WINDOW // 2) / _SIGMA) ** 2) for k in range(SSIM_WINDOW)]
    n = x.shape[dim] - SSIM_WINDOW + 1
    out = torch.zeros_like(x.narrow(dim, 0, n))
    for k, weight in enumerate(weights):
        out.add_(x.narrow(dim, k, n), alpha=weight / sum(weights))
    return out
