"""Structural similarity (SSIM) of pictures as NumPy arrays, without torch.

Wang et al. 2004: Gaussian window 11 × 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SSIM_WINDOW", "mean_ssim"]

Floats = NDArray[np.float32]

SSIM_WINDOW = 11
"""Side of the window [px]; a smaller picture has no SSIM."""

_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_BLOCK = 64
"""Rows, and columns, of the map that one matrix product gives. It also bounds the memory."""


def mean_ssim(x: Floats, y: Floats) -> float:
    """The mean over channels and over all windows inside the picture; exactly 1 for identical pictures.

    x, y: [C, H, W] in [0, 1], of one shape, H and W at least `SSIM_WINDOW`.
    """
    channels, height, width = x.shape
    border = SSIM_WINDOW - 1
    total = 0.0
    for top in range(0, height - border, _BLOCK):
        rows = slice(top, top + _BLOCK + border)
        total += float(_ssim_map(x[:, rows], y[:, rows]).sum(dtype=np.float64))
    mean: float = total / (channels * (height - border) * (width - border))
    return mean


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


def _band() -> Floats:
    """[n, n + 10]: row i holds the window's weights from column i on."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    band = np.zeros((_BLOCK, _BLOCK + SSIM_WINDOW - 1), np.float32)
    for row in range(_BLOCK):
        band[row, row : row + SSIM_WINDOW] = weights / weights.sum()
    return band


_BAND = _band()
