"""Where a change is seen first: regular patterns in flat areas, against the contrast that is just noticed.

Sky, a plain background and skin hide nothing. There the eye finds stripes and lattices of a contrast far
below that of noise with the same energy, since it sums a pattern over many periods. So the spectrum of the
change is taken in windows in which the original is flat, and compared with the contrast that is just noticed
at each frequency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure.sensitivity import (
    PIXELS_PER_DEGREE,
    WHITE,
    luminance_sensitivity,
    opponent,
    red_green_sensitivity,
    yellow_violet_sensitivity,
)

__all__ = ["FLAT", "WINDOW", "FlatPattern", "flat_pattern"]

WINDOW = 48
"""Side of a window [px]: 1.2 degrees."""
FLAT = 3 / 255
"""Largest standard deviation of the original's grey values in a flat window, apart from a linear shading."""

_LONGEST = 1.5  # periods in a window of the coarsest pattern: a slower change is no pattern
_MOST = 1500  # windows looked at, evenly spaced: bounds the time for a large picture
_BATCH = 64  # windows at a time: bounds the memory
_PADDED = 2 * WINDOW


@dataclass(frozen=True)
class FlatPattern:
    """The strongest regular pattern of a change in flat areas.

    1 is just noticeable at arm's length; at 2 the contrast is twice as high.
    """

    worst: float | None
    """In the worst window; None if no window is flat."""
    mean: float | None
    """Mean over the flat windows."""
    wavelength: float | None
    """Of the worst window's pattern [px]; None without a pattern."""
    flat: float
    """Share of the windows that are flat, 0 to 1."""


@torch.no_grad()
def flat_pattern(
    original: NDArray[np.float32] | Tensor, protected: NDArray[np.float32] | Tensor
) -> FlatPattern:
    """How visible the change from `original` to `protected` is where the picture is flat.

    Both in sRGB, in [0, 1]: arrays [H, W, 3], or tensors [3, H, W]. `measure/sensitivity.py` states display,
    distance and the contrast sensitivity functions. `WINDOW` and `FLAT` say which areas count. A picture
    that is smaller than a window has no flat area.

    In each window, luminance, red-green and yellow-violet of the change are divided by the window's mean
    luminance. Black has the display's floor luminance. The Fourier amplitudes (Hann window) are multiplied by
    the sensitivity at their frequency and that luminance, and the three are summed as squares, as castleCSF
    does. The figure of a window is the largest of all frequencies.

    Raises UsageError for other shapes.
    """
    before, after = _image(original), _image(protected)
    if before.shape != after.shape:
        raise UsageError(
            f"two pictures of one size are needed, not {[*before.shape]} and {[*after.shape]}; give the "
            "original and its protected copy"
        )
    places, looked_at = _flat_places(before)
    if not places:
        return FlatPattern(None, None, None, 0.0)
    strengths, lengths = [], []
    for start in range(0, len(places), _BATCH):
        some = places[start : start + _BATCH]
        strength, length = _strongest(_cut(before, some), _cut(after, some))
        strengths.append(strength)
        lengths.append(length)
    strength, length = torch.cat(strengths), torch.cat(lengths)
    worst = int(strength.argmax())
    seen = float(strength[worst]) > 0
    return FlatPattern(
        worst=float(strength[worst]),
        mean=float(strength.mean()),
        wavelength=float(length[worst]) if seen else None,
        flat=len(places) / looked_at,
    )


def _image(image: NDArray[np.float32] | Tensor) -> Tensor:
    """[3, H, W] float32."""
    given = image if isinstance(image, Tensor) else torch.from_numpy(np.asarray(image)).movedim(-1, 0)
    if given.ndim != 3 or given.shape[0] != 3:
        raise UsageError(
            f"an array [H, W, 3] or a tensor [3, H, W] is needed, not a shape of {[*image.shape]}"
        )
    return given.detach().float().cpu()


def _flat_places(image: Tensor) -> tuple[list[tuple[int, int]], int]:
    """(y, x) of the windows in which the picture [3, H, W] is flat, and how many were looked at."""
    height, width = image.shape[-2:]
    if min(height, width) < WINDOW:
        return [], 0
    step = max(WINDOW // 2, int((height * width / _MOST) ** 0.5) + 1)
    rows, columns = _starts(height, step), _starts(width, step)
    places = []
    for y in rows:
        grey = image[:, y : y + WINDOW].mean(0)
        windows = torch.stack([grey[:, x : x + WINDOW] for x in columns])
        flat = _rest(windows).square().mean((1, 2)).sqrt() <= FLAT
        places += [(y, x) for x, is_flat in zip(columns, flat.tolist(), strict=True) if is_flat]
    return places, len(rows) * len(columns)


def _starts(side: int, step: int) -> list[int]:
    """Where windows begin along a side: every `step` px, and at its end."""
    last = side - WINDOW
    return [*range(0, last, step), last]


def _rest(windows: Tensor) -> Tensor:
    """Windows [n, s, s] without their mean and linear shading."""
    ramp = torch.linspace(-1, 1, WINDOW)
    ramp = ramp / ramp.square().mean().sqrt()
    rest = windows - windows.mean((1, 2), keepdim=True)
    for line in (ramp[:, None], ramp[None, :]):
        rest = rest - (rest * line).mean((1, 2), keepdim=True) * line
    return rest


def _cut(image: Tensor, places: list[tuple[int, int]]) -> Tensor:
    return torch.stack([image[:, y : y + WINDOW, x : x + WINDOW] for y, x in places])


def _strongest(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Of windows [n, 3, s, s]: the strongest pattern over the just noticed one, and its wavelength [px]."""
    a = opponent(before)
    mean = a[:, 0].mean((1, 2))
    change = (opponent(after) - a) / mean.view(-1, 1, 1, 1)
    hann = torch.hann_window(WINDOW, periodic=False)
    hann = hann[:, None] * hann[None, :]
    change = (change - (change * hann).sum((2, 3), keepdim=True) / hann.sum()) * hann
    amplitude = torch.fft.rfft2(change, s=(_PADDED, _PADDED)).abs() / hann.sum()
    cycles, twice = _frequencies()
    per_degree = (cycles * PIXELS_PER_DEGREE).clamp(min=0.01)
    luminance = (mean * WHITE).view(-1, 1, 1)
    channels = (luminance_sensitivity, red_green_sensitivity, yellow_violet_sensitivity)
    seen = torch.zeros_like(amplitude[:, 0])
    for channel, sensitivity in enumerate(channels):
        seen += (amplitude[:, channel] * sensitivity(per_degree, luminance)).square()
    seen = seen.sqrt() * twice * (cycles >= _LONGEST / WINDOW)
    strongest, where = seen.flatten(1).max(1)
    return strongest, 1 / cycles.flatten()[where].clamp(min=1 / WINDOW)


def _frequencies() -> tuple[Tensor, Tensor]:
    """Of each bin of the spectrum: cycles per pixel, and the amplitude of a wave over the bin's value.

    That is 2, as a real wave has two bins, but 1 where the finest lattices have a single one.
    """
    y = torch.fft.fftfreq(_PADDED).abs()[:, None]
    x = torch.fft.rfftfreq(_PADDED)[None, :]
    near = 1.0 / WINDOW
    single = ((y <= near) | (y >= 0.5 - near)) & ((x <= near) | (x >= 0.5 - near))
    return (y.square() + x.square()).sqrt(), torch.where(single, 1.0, 2.0)
