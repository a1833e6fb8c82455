"""Between the integers of a file and RGB in [0, 1], and back without ever overstepping.

A file's samples are grey, RGB or CMYK, 8 or 16 bits, with or without an alpha channel, which may be
multiplied into the colours (TIFF's associated alpha). Protection works on RGB. `to_rgb` gives what a training
script gets from Pillow's `convert("RGB")`: native values, without the ICC profile. (Pillow clips 16-bit grey;
here it is treated like colour.) `apply` changes the file's own integers by the *difference* only, so that an
unchanged pixel keeps its bits, and

- without a budget the difference is truncated: no integer lies farther from the original than the float did,
  except for `HAIR`, the rounding of float32;
- with a budget of n/255 the difference is rounded to nearest and then held to the budget, which keeps more of
  the perturbation and is as safe.

From a difference d in RGB to samples: grey takes the mean of the three. CMYK keeps its black plate and moves
the inks by -d/(1 - K), where R = (1 - C)(1 - K). Colours multiplied by alpha move by d·alpha. Alpha and all
further channels keep their bits. Fully transparent pixels are treated like others, because a training script
drops alpha and sees their colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["HAIR", "ColourModel", "Floats", "Pixels", "apply", "to_rgb", "top_of"]

Pixels = NDArray[np.unsignedinteger[Any]]
"""H × W × C, uint8 or uint16: colour channels first, then alpha, then whatever else the file has."""
Floats = NDArray[np.float32]

_SLACK = 1e-5  # so that a budget that was computed in float32 does not lose a whole level
HAIR = 1 / 64
"""Part of a level that counts as float32 rounding: each operation adds up to 0.004 levels at 16 bits."""


@dataclass(frozen=True, slots=True)
class ColourModel:
    """The meaning of a file's channels."""

    space: Literal["grey", "rgb", "cmyk"]
    alpha: Literal["none", "straight", "premultiplied"] = "none"

    @property
    def colours(self) -> int:
        """Number of colour channels; alpha, where there is one, is the channel after them."""
        return {"grey": 1, "rgb": 3, "cmyk": 4}[self.space]


def top_of(pixels: Pixels) -> int:
    """The largest value of a sample: 255 or 65535."""
    return int(np.iinfo(pixels.dtype).max)


def to_rgb(pixels: Pixels, model: ColourModel) -> Floats:
    """H × W × C integers -> H × W × 3 float32 in [0, 1], a new array."""
    samples = pixels[..., : model.colours].astype(np.float32)
    samples /= np.float32(top_of(pixels))
    if model.space == "cmyk":
        samples[..., :3] = (1 - samples[..., :3]) * (1 - samples[..., 3:])
        return np.ascontiguousarray(samples[..., :3])
    if model.alpha == "premultiplied":
        alpha = _alpha(pixels, model)
        samples = np.minimum(samples / np.where(alpha > 0, alpha, 1), 1).astype(np.float32, copy=False)
    return np.repeat(samples, 3, axis=2) if model.space == "grey" else samples


def apply(pixels: Pixels, model: ColourModel, rgb: Floats, budget: float | None) -> Pixels:
    """All channels of `pixels`, with the colours moved to those of `rgb`, as a new array.

    pixels: H × W × C, the original. rgb: H × W × 3 float32, clipped to [0, 1]. budget: n, meaning n/255, or
    None (see the module).
    """
    if budget is not None and model.space == "rgb" and model.alpha != "premultiplied":
        return _apply_plainly(pixels, rgb, budget)
    top = top_of(pixels)
    delta = np.clip(rgb, 0, 1) - to_rgb(pixels, model)
    delta *= top
    if model.space == "grey":
        delta = delta.mean(axis=2, keepdims=True, dtype=np.float32)
    factor: Floats | float = 1.0
    if model.space == "cmyk":
        room = 1 - pixels[..., 3:4].astype(np.float32) / top
        factor = np.where(room > 0, -1 / np.where(room > 0, room, 1), 0).astype(np.float32)
    elif model.alpha == "premultiplied":
        factor = _alpha(pixels, model)
    delta *= factor
    if budget is None:
        step = np.sign(delta) * np.floor(np.abs(delta) + HAIR * np.minimum(np.abs(factor), 1))
    else:
        limit = np.floor(budget * (1 + _SLACK) * top / 255 * np.abs(factor))
        step = np.clip(np.rint(delta), -limit, limit)
    moved = 3 if model.space == "cmyk" else model.colours
    ceiling: Any = pixels[..., model.colours, None] if model.alpha == "premultiplied" else top
    result = pixels.copy()
    old = pixels[..., :moved].astype(np.int32)
    # A colour above its alpha is invalid but occurs. Without a change it stays.
    high = np.maximum(ceiling, old)
    result[..., :moved] = np.clip(old + step.astype(np.int32), 0, high).astype(pixels.dtype)
    return result


def _apply_plainly(pixels: Pixels, rgb: Floats, budget: float) -> Pixels:
    """`apply` where colours are stored as they are: the same arithmetic in place, in a third of the time."""
    top = top_of(pixels)
    old = pixels[..., :3].astype(np.float32)  # exact, and so are its sums with whole steps
    moved = np.clip(rgb, 0, 1)
    moved -= old / np.float32(top)
    moved *= np.float32(top)
    np.rint(moved, out=moved)
    limit = math.floor(budget * (1 + _SLACK) * top / 255)
    np.clip(moved, -limit, limit, out=moved)
    moved += old
    np.clip(moved, 0, top, out=moved)
    if pixels.shape[2] == 3:
        return moved.astype(pixels.dtype)
    result = pixels.copy()
    result[..., :3] = moved
    return result


def _alpha(pixels: Pixels, model: ColourModel) -> Floats:
    at = model.colours
    return (pixels[..., at : at + 1].astype(np.float32) / np.float32(top_of(pixels))).astype(np.float32)
