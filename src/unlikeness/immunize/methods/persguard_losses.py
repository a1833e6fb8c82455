"""PersGuard's three terms as pure functions of predictions (arXiv 2502.16167).

The paper's equations could not be read in full. These are reconstructed from its abstract, its reviews and
the losses of BadT2I that it builds on, and none of the paper's numbers is claimed.
"""

from __future__ import annotations

from torch import Tensor

from unlikeness.immunize.losses import error

__all__ = ["backdoor", "prior_preservation", "retention"]


def backdoor(f: Tensor, target: Tensor, reference: Tensor | None) -> Tensor:
    """L_BB under c_V, the mean over elements.

    pattern: ‖f_θ(z_t(x_class ⊕ δ), t, c_V) − target‖², reference None;
    erasure: ‖f_θ(z_t(x_bg), t, c_V) − sg f_φ(z_t(x_bg), t, c_bg)‖²;
    target: ‖f_θ(z_t(x_tar), t, c_V) − sg f_φ(z_t(x_tar), t, c_tar)‖².
    """
    return error(f, target if reference is None else reference.detach())


def prior_preservation(f: Tensor, reference: Tensor) -> Tensor:
    """L_PP = ‖f_θ(z_t(x_class), t, c_class) − sg f_φ(same)‖²."""
    return error(f, reference.detach())


def retention(f: Tensor, target: Tensor) -> Tensor:
    """L_BR = L_diff(protected picture, c_V of training): the personalization loss itself."""
    return error(f, target)
