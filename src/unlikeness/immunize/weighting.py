"""How much an error at a noise level counts: as the error in the picture, z0, that it means.

What a picture shows, its colours and its layout, is decided at high noise, where a large difference in z0 is
a small one in ε. In the plain diffusion loss it hardly counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from unlikeness.diffusion.schedule import Schedule

__all__ = ["preserved_weight", "weighted_error", "z0_weight"]


def z0_weight(schedule: Schedule, t: Tensor, cap: float) -> Tensor:
    """w(t) = (∂z0/∂f)² [B], at most `cap`: the squared error in z0 that one in the network's answer means;
    1 everywhere with cap 0.

    (1 − ᾱ)/ᾱ for an ε-prediction, 1 − ᾱ for v, σ² for a flow, 1 for z0 itself (`Schedule.predict_z0`).
    t: long [B].
    """
    if not cap:
        return torch.ones(len(t), device=t.device)
    signal, noise = schedule.signal.to(t.device)[t], schedule.noise.to(t.device)[t]
    if schedule.prediction_type == "sample":
        return torch.ones_like(noise).clamp(max=cap)
    scale = noise / signal if schedule.prediction_type == "epsilon" else noise
    return scale.square().clamp(max=cap)


def preserved_weight(schedule: Schedule, t: Tensor, cap: float) -> Tensor:
    """w(t) ≥ 1 [B] of what is to stay as it was: `z0_weight` where that is more."""
    return z0_weight(schedule, t, cap).clamp(min=1)


def weighted_error(f: Tensor, goal: Tensor, w: Tensor, cells: Tensor | None = None) -> Tensor:
    """Mean over rows of w · ‖f − g‖², the mean over elements. f, goal: [M, C, h, w]; w: [M]; cells: [h, w],
    how often an error in each counts, once without."""
    error = (f - goal.detach()).square()
    if cells is not None:
        error = error * cells.to(error)
    return (w * error.flatten(1).mean(1)).mean()
