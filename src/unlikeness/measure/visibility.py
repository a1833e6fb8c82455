"""How visible a perturbation is: L∞, PSNR and SSIM between an original and its protected copy.

`picture_linf`, `picture_psnr` and `mean_ssim` compare two pictures as NumPy arrays [C,H,W] in [0,1], and load
no torch. `linf`, `psnr` and `ssim` compare two batches of image tensors [B,C,H,W] in [0,1] and return one
float64 figure per image, [B], without gradient. These raise `UsageError` if the shapes differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SSIM_WINDOW", "linf", "mean_ssim", "picture_linf", "picture_psnr", "psnr", "ssim"]

Floats = NDArray[np.floating[Any]]

SSIM_WINDOW = 11
"""Side of the window [px]; a smaller picture has no SSIM."""

_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_BLOCK = 64
"""Rows, and columns, of the map that one matrix product gives. It also bounds the memory."""


def picture_linf(x: Floats, y: Floats) -> float:
    """The largest change of any channel of any pixel [n/255].

    Rounded to 1e-4 of 1/255: float32 pixels say no more, and a difference of exactly 8/255 must read 8.
    """
    return round(float(np.abs(x - y).max()) * 255, 4)


def picture_psnr(x: Floats, y: Floats) -> float:
    """Peak signal-to-noise ratio [dB], 10·log10(1 / mean squared error); inf for identical pictures."""
    mean = float(np.square(x - y).mean(dtype=np.float64))
    return -10 * math.log10(mean) if mean > 0 else math.inf


def mean_ssim(x: Floats, y: Floats) -> float:
    """Structural similarity: the mean over channels and over all windows inside the picture.

    Exactly 1 for identical pictures. Wang et al. 2004: Gaussian window 11 × 11 with sigma 1.5, K1 = 0.01,
    K2 = 0.03, data range 1, computed in float32.

    x, y: [C, H, W] in [0, 1], of one shape, H and W at least `SSIM_WINDOW`.
    """
    x, y = x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)
    channels, height, width = x.shape
    border = SSIM_WINDOW - 1
    total = 0.0
    for top in range(0, height - border, _BLOCK):
        rows = slice(top, top + _BLOCK + border)
        total += float(_ssim_map(x[:, rows], y[:, rows]).sum(dtype=np.float64))
    mean: float = total / (channels * (height - border) * (width - border))
    return mean


def linf(a: Tensor, b: Tensor) -> Tensor:
    """`picture_linf` of each image: [B]."""
    return _each(picture_linf, a, b)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """`picture_psnr` of each image: [B]."""
    return _each(picture_psnr, a, b)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """`mean_ssim` of each image: [B]. Raises UsageError if a side is shorter than the window."""
    height, width = a.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise UsageError(
            f"SSIM needs images of {SSIM_WINDOW} × {SSIM_WINDOW} px or more, not {width} × {height}"
        )
    return _each(mean_ssim, a, b)


def _each(measure: Callable[[Floats, Floats], float], a: Tensor, b: Tensor) -> Tensor:
    import torch

    if a.ndim != 4 or a.shape != b.shape:
        raise UsageError(
            f"two batches of images [B,C,H,W] of one shape are needed, not {[*a.shape]} and {[*b.shape]}"
        )
    one, other = (x.detach().float().cpu().numpy() for x in (a, b))
    figures = [measure(x, y) for x, y in zip(one, other, strict=True)]
    return torch.tensor(figures, dtype=torch.float64, device=a.device)


def _ssim_map(x: Floats, y: Floats) -> Floats:
    """The SSIM of every full window of two strips [C, h, W]: [C, h - 10, W - 10]."""
    mean_x, mean_y, squares, products = _gaussian(np.stack([x, y, x * x + y * y, x * y]))
    both, each = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    above = (2 * both + _C1) * (2 * (products - both) + _C2)
    result: Floats = above / ((each + _C1) * (squares - each + _C2))
    return result


def _gaussian(x: Floats) -> Floats:
    """The Gaussian mean over every full window of planes [..., h, W], with h at most a block and its border.

    Matrix products with a band matrix do more arithmetic than sums of shifted copies, in less time.
    """
    border = SSIM_WINDOW - 1
    height, width = x.shape[-2] - border, x.shape[-1] - border
    down = _BAND[:height, : height + border] @ x
    result = np.empty((*x.shape[:-2], height, width), np.float32)
    for left in range(0, width, _BLOCK):
        count = min(_BLOCK, width - left)
        across = _BAND[:count, : count + border].T
        np.matmul(down[..., left : left + count + border], across, out=result[..., left : left + count])
    return result


def _band() -> NDArray[np.float32]:
    """[n, n + 10]: row i holds the window's weights from column i on."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    band = np.zeros((_BLOCK, _BLOCK + SSIM_WINDOW - 1), np.float32)
    for row in range(_BLOCK):
        band[row, row : row + SSIM_WINDOW] = weights / weights.sum()
    return band


_BAND = _band()
