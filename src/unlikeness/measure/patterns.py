"""Where a change is seen first: regular patterns in flat areas, against the contrast that is just noticed.

Sky, a plain background and skin hide nothing. There the eye finds stripes and lattices of a contrast far
below that of noise with the same energy, since it sums a pattern over many periods. So the spectrum of the
change is taken in windows in which the original is flat, and compared with the contrast that is just noticed
at each frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import UsageError
from unlikeness.measure.sensitivity import (
    PIXELS_PER_DEGREE,
    WHITE,
    luminance_sensitivity,
    opponent,
    red_green_sensitivity,
    yellow_violet_sensitivity,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FLAT", "WINDOW", "FlatPattern", "flat_pattern", "flat_places", "strongest"]

Floats = NDArray[np.float32]

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


def flat_pattern(original: Floats | Tensor, protected: Floats | Tensor) -> FlatPattern:
    """How visible the change from `original` to `protected` is where the picture is flat.

    Both in sRGB, in [0, 1]: arrays [H, W, 3], or tensors [3, H, W]. `measure/sensitivity.py` states display,
    distance and the contrast sensitivity functions. `WINDOW` and `FLAT` say which areas count. A picture
    that is smaller than a window has no flat area.

    In each window, luminance, red-green and yellow-violet of the change are divided by the window's mean
    luminance. Black has the display's floor luminance. The Fourier amplitudes (Hann window) are multiplied by
    the sensitivity at their frequency and that luminance, and the three are summed as squares, as castleCSF
    does. The figure of a window is the largest of all frequencies.

    Raises UsageError for other shapes, and for values that are not finite.
    """
    before, after = _image(original), _image(protected)
    if before.shape != after.shape:
        raise UsageError(
            f"two pictures of one size are needed, not {[*before.shape]} and {[*after.shape]}; give the "
            "original and its protected copy"
        )
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise UsageError("a picture has values that are NaN or infinite; give finite values in [0, 1]")
    places, looked_at = flat_places(before)
    if not places:
        return FlatPattern(None, None, None, 0.0)
    strength, length = strongest(before, after, places)
    worst = int(strength.argmax())
    seen = float(strength[worst]) > 0
    return FlatPattern(
        worst=float(strength[worst]),
        mean=float(strength.mean()),
        wavelength=float(length[worst]) if seen else None,
        flat=len(places) / looked_at,
    )


def _image(image: Floats | Tensor) -> Floats:
    """[3, H, W] float32."""
    given: Floats = image if isinstance(image, np.ndarray) else image.detach().float().cpu().numpy()
    if isinstance(image, np.ndarray) and given.ndim:
        given = np.moveaxis(given, -1, 0)
    if given.ndim != 3 or given.shape[0] != 3:
        raise UsageError(
            f"an array [H, W, 3] or a tensor [3, H, W] is needed, not a shape of {[*image.shape]}"
        )
    return np.asarray(given, np.float32)


def flat_places(image: Floats) -> tuple[list[tuple[int, int]], int]:
    """(y, x) of the windows in which the picture [3, H, W] is flat, and how many were looked at.

    A window is `WINDOW` px wide and high.
    """
    height, width = image.shape[-2:]
    if min(height, width) < WINDOW:
        return [], 0
    step = max(WINDOW // 2, int((height * width / _MOST) ** 0.5) + 1)
    rows, columns = _starts(height, step), _starts(width, step)
    places = []
    for y in rows:
        grey = image[:, y : y + WINDOW].mean(0)
        windows = np.stack([grey[:, x : x + WINDOW] for x in columns])
        flat = np.sqrt(np.square(_rest(windows)).mean((1, 2))) <= FLAT
        places += [(y, x) for x, is_flat in zip(columns, flat.tolist(), strict=True) if is_flat]
    return places, len(rows) * len(columns)


def _starts(side: int, step: int) -> list[int]:
    """Where windows begin along a side: every `step` px, and at its end."""
    last = side - WINDOW
    return [*range(0, last, step), last]


def _rest(windows: Floats) -> Floats:
    """Windows [n, s, s] without their mean and linear shading."""
    ramp = np.linspace(-1, 1, WINDOW, dtype=np.float32)
    ramp /= np.sqrt(np.square(ramp).mean())
    rest: Floats = windows - windows.mean((1, 2), keepdims=True)
    for line in (ramp[:, None], ramp[None, :]):
        rest = rest - (rest * line).mean((1, 2), keepdims=True) * line
    return rest


def _cut(image: Floats, places: Sequence[tuple[int, int]]) -> Floats:
    cut: Floats = np.stack([image[:, y : y + WINDOW, x : x + WINDOW] for y, x in places])
    return cut


def strongest(before: Floats, after: Floats, places: Sequence[tuple[int, int]]) -> tuple[Floats, Floats]:
    """Of the windows at `places`, one or more: see `flat_pattern`.

    before, after: [3, H, W]. Returns [n]: the strongest pattern, 1 is just noticeable; and [n]: its
    wavelength [px].
    """
    batches = [places[start : start + _BATCH] for start in range(0, len(places), _BATCH)]
    found = [_strongest(_cut(before, some), _cut(after, some)) for some in batches]
    strengths, lengths = zip(*found, strict=True)
    return np.concatenate(strengths), np.concatenate(lengths)


def _strongest(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Of windows [n, 3, s, s]: the strongest pattern over the just noticed one, and its wavelength [px]."""
    a = opponent(before)
    mean = a[:, 0].mean((1, 2))
    change = (opponent(after) - a) / mean[:, None, None, None]
    hann = np.outer(np.hanning(WINDOW), np.hanning(WINDOW)).astype(np.float32)
    change = (change - (change * hann).sum((2, 3), keepdims=True) / hann.sum()) * hann
    amplitude = np.abs(np.fft.rfft2(change, s=(_PADDED, _PADDED))) / hann.sum()
    cycles, twice = _frequencies()
    per_degree = np.maximum(cycles * PIXELS_PER_DEGREE, 0.01)
    luminance = (mean * WHITE)[:, None, None]
    channels = (luminance_sensitivity, red_green_sensitivity, yellow_violet_sensitivity)
    seen = np.zeros_like(amplitude[:, 0])
    for channel, sensitivity in enumerate(channels):
        seen += np.square(amplitude[:, channel] * sensitivity(per_degree, luminance))
    seen = (np.sqrt(seen) * twice * (cycles >= _LONGEST / WINDOW)).reshape(len(seen), -1)
    strongest: Floats = seen.max(1)
    lengths = 1 / np.maximum(cycles.ravel()[seen.argmax(1)], 1 / WINDOW)
    return strongest, lengths


def _frequencies() -> tuple[Floats, Floats]:
    """Of each bin of the spectrum: cycles per pixel, and the amplitude of a wave over the bin's value.

    That is 2, as a real wave has two bins, but 1 where the finest lattices have a single one.
    """
    y = np.abs(np.fft.fftfreq(_PADDED)).astype(np.float32)[:, None]
    x = np.fft.rfftfreq(_PADDED).astype(np.float32)[None, :]
    near = 1.0 / WINDOW
    single = ((y <= near) | (y >= 0.5 - near)) & ((x <= near) | (x >= 0.5 - near))
    return np.sqrt(np.square(y) + np.square(x)), np.where(single, np.float32(1), np.float32(2))
