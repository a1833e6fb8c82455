"""Visible regular patterns in a perturbation: gratings, lattices, stripes.

The perturbation is cut into overlapping windows. In each, the amplitude of every spatial frequency is
weighted by the eye's contrast sensitivity and divided by a threshold, which rises with the contrast of the
picture there. The amplitudes are pooled with exponent 4 (Robson & Graham 1981), so that one strong grating
counts much more than noise of the same energy. `measure.patterns` is the judge; this is smooth.

Sensitivity to luminance: Mannos & Sakrison 1974. To colour: an exponential fall, as measured by Mullen 1985.
A picture is seen at 60 cm on a display of 96 pixels an inch: 40 pixels a degree.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["CELL", "WINDOW", "regular", "repeated", "visible"]

CELL = 16
"""Side of the cell in which `repeated` looks for what is the same everywhere [px]: the network's own."""

WINDOW = 32
"""Side of a window [px]; neighbours overlap by half."""

_PIXELS_A_DEGREE = 40.0
_LEAST = 0.5 / 255
"""Amplitude of a grating in a flat area that counts as visible, at the eye's best frequency."""

_MASKING = 0.1
"""Growth of this threshold with the picture's standard deviation in the window."""

# Y, Cb, Cr of JFIF 1.02 from R, G, B.
_OPPONENT = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))


def regular(delta: Tensor, images: Tensor, budget: Tensor) -> Tensor:
    """How far δ at 8/255 passes the threshold of visibility, mean over windows and pictures; a scalar.

    delta, images: [B, 3, H, W] in [0, 1] units, H and W at least `WINDOW`; budget: [B] in n/255.
    """
    at_eight = delta * (8 / budget).view(-1, 1, 1, 1)
    return torch.relu(visible(at_eight, images) - 1).mean()


def repeated(delta: Tensor, budget: Tensor) -> Tensor:
    """How much of δ is one and the same cell of `CELL` px, over and over; a scalar, 0 for none.

    The mean over all cells of a picture keeps a share of 1 / cells of noise's energy. One and a half times
    this is free.

    delta: [B, 3, H, W] in [0, 1] units; budget: [B] in n/255.
    """
    unit = delta * (255 / budget).view(-1, 1, 1, 1)
    rows, columns = (side // CELL for side in unit.shape[-2:])
    cut = unit[..., : rows * CELL, : columns * CELL]
    cell = cut.reshape(*unit.shape[:2], rows, CELL, columns, CELL).mean((2, 4))
    energy = unit.detach().square().mean((1, 2, 3)) + 0.02
    return torch.relu(cell.square().mean((1, 2, 3)) / energy - 1.5 / (rows * columns)).mean()


def visible(delta: Tensor, images: Tensor) -> Tensor:
    """[B, windows]: pooled amplitude of δ over the threshold; 1 is just visible."""
    weights, window = _sensitivity(), _window()
    spectrum = torch.fft.rfft2(_cut(_opponent(delta)) * window)
    amplitude = 2 * spectrum.abs() / window.sum() * weights[None, :, None]
    light = _cut(_opponent(images)[:, :1])[:, 0]
    contrast = light.var((-2, -1), correction=0).clamp_min(1e-12).sqrt()
    threshold = _LEAST + _MASKING * contrast
    ratio = amplitude / threshold[:, None, :, None, None]
    pooled: Tensor = (ratio.pow(4).sum((1, 3, 4)) + 1e-12).pow(0.25)
    return pooled


def _cut(planes: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, windows, WINDOW, WINDOW]."""
    step = WINDOW // 2
    cut: Tensor = planes.unfold(2, WINDOW, step).unfold(3, WINDOW, step)
    pieces: Tensor = cut.reshape(*planes.shape[:2], -1, WINDOW, WINDOW)
    return pieces


def _opponent(colours: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", colours.new_tensor(_OPPONENT), colours)


@lru_cache(maxsize=1)
def _window() -> Tensor:
    rise = torch.hann_window(WINDOW, periodic=False) + 0.02
    window: Tensor = rise[:, None] * rise
    return window


@lru_cache(maxsize=1)
def _sensitivity() -> Tensor:
    """[3, WINDOW, WINDOW // 2 + 1], about 1 at the best frequency of luminance."""
    down = torch.fft.fftfreq(WINDOW)[:, None]
    across = torch.fft.rfftfreq(WINDOW)[None]
    f = (down.square() + across.square()).sqrt() * _PIXELS_A_DEGREE
    light = 2.6 * (0.0192 + 0.114 * f) * torch.exp(-((0.114 * f) ** 1.1))
    light[0, 0] = light[0, 1]  # the mean of a window is part of a coarser pattern
    colour = 0.7 * torch.exp(-f / 6)
    return torch.stack([light, colour, colour])
