"""Losses as pure functions of predictions, and weights of noise levels. Equations of APDM: arXiv
2511.01307."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from unlikeness.diffusion.schedule import Schedule

__all__ = ["adversarial", "error", "guided", "preference", "preserved_weight", "weighted_error", "z0_weight"]


def error(f: Tensor, target: Tensor) -> Tensor:
    """L_diff of given predictions: ‖f − target‖², the mean over elements."""
    return (f - target).square().mean()


def adversarial(f: Tensor, target: Tensor) -> Tensor:
    """−L_diff(x⁻, c_V): the naive loss of APDM's Proposition 1, which has no minimum."""
    return -error(f, target)


def preference(f: Tensor, reference: Tensor, target: Tensor, beta: float) -> Tensor:
    """L_DPO of APDM (Eq. 14): −log σ(−β (r⁺ − r⁻)), r± = (f_θ − target)² − (f_φ − target)², all under c_V.

    The logarithm is taken element by element and the mean after it, as in the released code; β = 1 is then
    the published setting.

    f, reference, target: [2n, ...], n generic pictures first, then n pictures of the subject, pair by pair at
    the same t and ε. reference: predictions of the original model.
    """
    r = (f - target).square() - (reference - target).square()
    better, worse = r.chunk(2)
    return -F.logsigmoid(-beta * (better - worse)).mean()


def guided(f: Tensor, f_empty: Tensor, guidance: float) -> Tensor:
    """f_∅ + guidance · (f_c − f_∅), from predictions with a prompt and with the empty one (Ho & Salimans
    2022, Eq. 6)."""
    return f_empty + guidance * (f - f_empty)


def z0_weight(schedule: Schedule, t: Tensor, cap: float) -> Tensor:
    """w(t) = (∂z0/∂f)² [B], at most `cap`: an error counts as the error in z0 that it means.

    A picture's colours and layout, and so the identity, are decided at high noise, where a large difference
    in z0 is a small one in ε and hardly counts in the plain diffusion loss. 1 everywhere with cap 0.

    (1 − ᾱ)/ᾱ for an ε-prediction, 1 − ᾱ for v, σ² for a flow, 1 for z0 itself. t: long [B].
    """
    if not cap:
        return torch.ones(len(t), device=t.device)
    signal, noise = schedule.signal.to(t.device)[t], schedule.noise.to(t.device)[t]
    if schedule.prediction_type == "sample":
        return torch.ones_like(noise).clamp(max=cap)
    scale = noise / signal if schedule.prediction_type == "epsilon" else noise
    return scale.square().clamp(max=cap)


def preserved_weight(schedule: Schedule, t: Tensor, cap: float) -> Tensor:
    """`z0_weight`, at least 1: for what must stay as it was."""
    return z0_weight(schedule, t, cap).clamp(min=1)


def weighted_error(f: Tensor, goal: Tensor, w: Tensor, cells: Tensor | None = None) -> Tensor:
    """Mean over the batch of w · ‖f − goal‖², the mean over elements.

    f, goal: [M, C, h, w]; w: [M]; cells: [h, w], weights of the cells.
    """
    error = (f - goal.detach()).square()
    if cells is not None:
        error = error * cells.to(error)
    return (w * error.flatten(1).mean(1)).mean()
