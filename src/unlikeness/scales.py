"""For which size of model settings are meant: Stable Diffusion's, of the literature, or the toybox's."""

from __future__ import annotations

from unlikeness.errors import UsageError

__all__ = ["SCALES", "which"]

SCALES = ("stable-diffusion", "toybox")

_SMALL = 128
"""Up to this many px a model is taken for one of the toybox's size."""


def which(name: str, resolution: int) -> str:
    """`name`, or for "auto" the scale of a model of this resolution [px]. UsageError if there is none."""
    if name == "auto":
        return "toybox" if resolution <= _SMALL else "stable-diffusion"
    if name not in SCALES:
        raise UsageError(f"{name} is no scale; valid are: auto, {', '.join(SCALES)}")
    return name
