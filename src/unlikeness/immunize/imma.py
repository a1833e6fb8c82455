"""IMMA (Zheng & Yeh, ECCV 2024): immunize against adaptation by bilevel optimization, for comparison.

The inner problem personalizes for a step; the outer one raises the personalization loss at what comes out, on
the weights of cross-attention alone. Written from that description: it is `Adversarial` along short attacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unlikeness.immunize.adversarial import Adversarial
from unlikeness.immunize.settings import PARTS, ImmunizeSettings
from unlikeness.settings import setting

__all__ = ["Imma", "ImmaSettings"]


@dataclass(frozen=True, kw_only=True)
class ImmaSettings(ImmunizeSettings):
    """One inner step for each outer one, cross-attention alone."""

    outer_steps: int = setting(1000, "Steps of the model that is released.", unit="steps", at_least=1)
    inner_steps: int = setting(1, "Steps of the inner problem.", unit="steps", source="IMMA: 1", at_least=0)
    learning_rate: float = setting(1e-5, "AdamW's step size.", source="IMMA: 1e-5", at_least=0.0)
    train: str = setting(
        "cross-attention", "Which weights of the U-Net change.", source="IMMA", choices=PARTS
    )


class Imma(Adversarial):
    """Raises L_per after each step of a simulated attack."""

    settings_type: ClassVar[type[ImmunizeSettings]] = ImmaSettings
