"""IMMA (Zheng & Yeh, ECCV 2024): immunize against adaptation by bilevel optimization, for comparison.

The inner problem personalizes for a step; the outer one raises the personalization loss at what comes out, on
the weights of cross-attention alone. Written from that description: it is `Adversarial` along short attacks.
"""

from __future__ import annotations

from typing import ClassVar

from unlikeness.immunize.methods.adversarial import Adversarial
from unlikeness.immunize.methods.settings import ImmaSettings
from unlikeness.immunize.settings import ImmunizeSettings

__all__ = ["Imma", "ImmaSettings"]


class Imma(Adversarial):
    """Raises L_per after each step of a simulated attack."""

    settings_type: ClassVar[type[ImmunizeSettings]] = ImmaSettings
