"""APDM as its released code has it, which does not clear the attacker's gradient: the row `apdm-leak`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from unlikeness import immunize
from unlikeness.immunize import Defence
from unlikeness.immunize.l2p import L2P
from unlikeness.immunize.methods.apdm import Apdm
from unlikeness.immunize.methods.settings import ApdmSettings
from unlikeness.settings import build

__all__ = ["LeakingApdm", "LeakingL2P", "create"]


class LeakingL2P(L2P):
    """L2P in which the gradient of each attack step is added to the sum."""

    def attack_step(self, generator: torch.Generator) -> None:
        self.attacker.step(generator)
        for p, theta in zip(self.weights.attacked, self.weights.released, strict=True):
            if p.grad is not None:
                theta.grad = p.grad if theta.grad is None else theta.grad.add_(p.grad)
        self.attacker.clear()


class LeakingApdm(Apdm):
    """APDM with this loop."""

    loop = LeakingL2P


def create(method: str, values: Mapping[str, Any]) -> Defence:
    """`immunize.create`, which knows the method `apdm_leak` too."""
    if method == "apdm_leak":
        return LeakingApdm(build(ApdmSettings, values))
    return immunize.create(method, values)
