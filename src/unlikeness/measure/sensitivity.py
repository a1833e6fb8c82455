"""How little contrast an observer sees, in luminance and in two opponent colours.

The observer sits at arm's length, 60 cm, from a display of 96 pixels per inch, and sees the picture at 100 %.
That makes 40 pixels per degree. White has 160 cd/m² (ISO 3664). Room light on the screen and stray light add
1 % of it everywhere (IEC 61966-2-1), so that black is not without light. A pattern fills 4 × 4 degrees.

A denser display or a longer distance hides more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FLOOR", "PIXELS_PER_DEGREE", "WHITE", "luminance_sensitivity", "opponent", "red_green_sensitivity",
    "yellow_violet_sensitivity",
]  # fmt: skip

Floats = NDArray[np.floating[Any]]

PIXELS_PER_DEGREE = 40.0
"""60 cm from a display of 96 pixels per inch."""
WHITE = 160.0
"""Luminance of white [cd/m²]."""
FLOOR = 0.01
"""Light that every pixel has, as a share of white."""
FIELD = 4.0
"""Side of a patterned area [degrees]."""

# From linear sRGB to XYZ (IEC 61966-2-1), and to the CIE 2006 cones in the scale of castleCSF, where L + M is
# nearly luminance.
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_CONES = np.array(
    [
        [0.187596268556126, 0.585168649077728, -0.026384263306304],
        [-0.133397430663221, 0.405505777260049, 0.034502127690364],
        [0.000244379021663, -0.000542995890619, 0.019406849066323],
    ]
)
_OPPONENT = np.array([[1.0, 1.0, 0.0], [1.0, -2.3112, 0.0], [-1.0, -1.0, 50.9875]])


def opponent(rgb: Floats) -> Floats:
    """sRGB values [..., 3, H, W] in [0, 1] -> luminance, red-green and yellow-violet, relative to white.

    [..., 3, H, W]. Luminance has the floor. Both colours are 0 for greys.
    """
    power = np.maximum((rgb + 0.055) / 1.055, 0) ** 2.4
    linear = np.where(rgb <= 0.04045, rgb / 12.92, power) + np.asarray(FLOOR, rgb.dtype)
    matrix = _OPPONENT @ _CONES @ _XYZ
    matrix = matrix / matrix[0].sum()
    matrix[1:] -= matrix[1:].mean(1, keepdims=True)  # greys are exactly without colour
    seen: Floats = np.einsum("oc,...chw->...ohw", matrix.astype(rgb.dtype), linear)
    return seen


def luminance_sensitivity(frequency: Floats, luminance: Floats) -> Floats:
    """1 / the Michelson contrast of a grating that is just noticed.

    frequency: [cycles per degree], above 0. luminance: of the surroundings [cd/m²]. They broadcast.
    Barten 2003, "Formula for the contrast sensitivity of the human eye", Proc. SPIE 5294.
    """
    u2 = np.square(frequency)
    blur = np.exp(-0.0016 * u2 * (1 + 100 / luminance) ** 0.08)
    size = 1 + 144 / FIELD**2 + 0.64 * u2
    noise = 63 / luminance**0.83 + 1 / (1 - np.exp(-0.02 * u2))
    seen: Floats = 5200 * blur / np.sqrt(size * noise)
    return seen


def red_green_sensitivity(frequency: Floats, luminance: Floats) -> Floats:
    """1 / the just noticed amplitude of `opponent`'s red-green over its luminance; see `_chromatic`."""
    return _chromatic(
        frequency, luminance, peak=(681.434, 38.0038, 0.480386), best=0.0178364, bandwidth=2.42104,
        area=2816.44, knee=0.0711058,
    )  # fmt: skip


def yellow_violet_sensitivity(frequency: Floats, luminance: Floats) -> Floats:
    """1 / the just noticed amplitude of `opponent`'s yellow-violet over its luminance; see `_chromatic`."""
    return _chromatic(
        frequency, luminance, peak=(166.683, 62.8974, 0.41193), best=0.00425753, bandwidth=2.68197,
        area=2.82789e7, knee=0.000635093,
    )  # fmt: skip


def _chromatic(
    frequency: Floats, luminance: Floats, *, peak: tuple[float, float, float], best: float, bandwidth: float,
    area: float, knee: float,
) -> Floats:  # fmt: skip
    """The colour channels of castleCSF for a pattern that does not move.

    Ashraf, Mantiuk, Chapiro and Wuerger 2024, "castleCSF: A contrast sensitivity function of color, area,
    spatiotemporal frequency, luminance and eccentricity", Journal of Vision 24(4). The size of the pattern
    acts as in Rovamo et al. 1993.
    """
    most, turn, power = peak
    highest = most * (1 + turn / luminance) ** -power
    distance = np.maximum(np.log10(frequency) - math.log10(best), 0)
    parabola = 10 ** -(np.square(distance) / 2**bandwidth)
    summed = area / (1 + np.square(frequency / knee))
    seen: Floats = highest * parabola * frequency * np.sqrt(summed / (1 + summed / FIELD**2))
    return seen
