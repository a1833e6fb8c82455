"""Why a saved picture is no protected one: where nothing of the change is left, the file is called a copy.

The budget may be smaller than a step of the file's values, a mask or a PSNR may leave nothing, the protection
may have found nothing to change, or the file's own compression may have thrown the change away.
"""

from __future__ import annotations

import math

from unlikeness.pictures import Edit, Picture
from unlikeness.protect.files.check import Visibility, kept
from unlikeness.protect.files.masks import Mask

__all__ = ["BELOW", "BLACK", "COARSE", "FAINT", "HARDLY", "NOTHING", "UNCHANGED", "foreseen", "why_unchanged"]

UNCHANGED = "nothing was changed, this is a copy: the budget is smaller than a step of the file's values"
BLACK = "nothing was changed, this is a copy: the mask is black or nearly so"
FAINT = "nothing was changed, this is a copy: psnr leaves less than a step of the file's values"
NOTHING = "nothing was changed, this is a copy: the protection found nothing to change"
COARSE = (
    "next to nothing of the change is left, this is a copy: the file's own compression takes the change "
    "away; convert the picture to PNG and protect that"
)
BELOW = (
    "next to nothing was changed, this is a copy: no value by half of 1/255, which the eight bits that "
    "training programs read do not show; raise the budget"
)
HARDLY = (
    "next to nothing was changed, this is a copy: rounding to the file's values leaves less than a "
    "hundredth of what was asked for"
)

_KEPT = 0.01
"""Least share of the change that is to be left in a lossy file."""

_LOST = 20.0
"""dB by which a change that is rounded may be fainter than was asked for: a hundredth of its energy."""

_FAINTEST = 12.0
"""dB by which a protection may stay below the energy of its budget."""

_STEP = 0.5
"""n/255: the least change of a value that eight bits show."""


def why_unchanged(
    picture: Picture, edit: Edit, saved: Picture, seen: Visibility, *, budget: float, psnr: float | None,
    masked: bool,
) -> str | None:  # fmt: skip
    """Why `saved` is only a copy of `picture`; None if the edit is in it.

    seen: how far they are from each other. budget [n/255], psnr [dB; None: any]: as asked. masked: whether a
    mask was asked for.
    """
    if edit.changed:
        if not picture.lossless:
            lost = seen.linf == 0 or kept(picture, edit, saved, enough=_KEPT) < _KEPT
            return COARSE if lost else None
        if seen.linf < _STEP:
            return BELOW
        asked = max(psnr or 0.0, 20 * math.log10(255 / budget) + _FAINTEST)
        return HARDLY if not masked and seen.psnr is not None and seen.psnr > asked + _LOST else None
    if masked:
        return BLACK
    if psnr is not None:
        return FAINT
    return UNCHANGED if _steps(picture, budget) < 1 else NOTHING


def foreseen(picture: Picture, budget: float, mask: Mask | None) -> str | None:
    """Why a picture will be only a copy, as far as it can be told before anything is computed."""
    if _steps(picture, budget) < 1:
        return UNCHANGED
    if mask is not None and _steps(picture, budget) * int(mask.values.max()) / 255 < 0.5:  # rounded to 0
        return BLACK
    return BELOW if budget < _STEP else None


def _steps(picture: Picture, budget: float) -> float:
    """The budget in steps of the file's values."""
    return budget * (1 if picture.depth == 8 else 257)
