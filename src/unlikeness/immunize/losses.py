"""Protective losses as pure functions of predictions: what a model is trained for along simulated attacks.

r(f) = (f − target)², element by element. "Generic" pictures x⁺ are of the class, drawn by the original
model φ; x⁻ are the protected subject's. Equations of APDM: arXiv 2511.01307.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["adversarial", "error", "preference"]


def error(f: Tensor, target: Tensor) -> Tensor:
    """L_diff of given predictions: ‖f − target‖², the mean over elements."""
    return (f - target).square().mean()


def preference(f: Tensor, reference: Tensor, target: Tensor, beta: float) -> Tensor:
    """L_DPO of APDM (Eq. 14): −log σ(−β (r⁺ − r⁻)), r± = (f_θ − target)² − (f_φ − target)², all under c_V.

    The logarithm is taken element by element and the mean after it, as the released code does; with that,
    β = 1 is the published setting.

    f, reference, target: [2n, ...], the n generic pictures x⁺ first, then the n of the subject x⁻, pair by
    pair at the same t and ε. reference: f_φ of the original model.
    """
    r = (f - target).square() - (reference - target).square()
    better, worse = r.chunk(2)
    return -F.logsigmoid(-beta * (better - worse)).mean()


def adversarial(f: Tensor, target: Tensor) -> Tensor:
    """−L_diff(x⁻, c_V): the naive loss of APDM's Proposition 1, which has no minimum."""
    return -error(f, target)
