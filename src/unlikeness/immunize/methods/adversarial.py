"""The naive adversarial loss, and IMMA: raise the subject's diffusion loss, keep the class's. For comparison.

    L_adv = −L_diff(x⁻, c_V) + w · L_diff(class picture, c_class)                  (APDM, Proposition 1)

The first term has no lower bound: the run cannot converge, and the model's pictures decay.

IMMA (Zheng & Yeh, ECCV 2024) immunizes against adaptation by bilevel optimization. The inner problem
personalizes for a step; the outer one raises the personalization loss at the result, on the weights of
cross-attention alone. Written from that description, it is this loss along short attacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.immunize.batch import Batch, class_part, subject_part
from unlikeness.immunize.losses import adversarial, error
from unlikeness.immunize.methods.settings import ImmaSettings
from unlikeness.immunize.settings import ImmunizeSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.data import ProtectedSubject
    from unlikeness.progress import Progress

__all__ = ["Adversarial", "Imma"]


class Adversarial:
    """L_adv along simulated attacks."""

    settings_type: ClassVar[type[ImmunizeSettings]] = ImmunizeSettings

    def __init__(self, settings: ImmunizeSettings | None = None) -> None:
        self.settings = settings or self.settings_type()

    def prepare(
        self, original: TextToImage, subjects: Sequence[ProtectedSubject], progress: Progress | None = None
    ) -> None:
        """Nothing."""

    def batch(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Batch:
        """ "subject" (n) and "class" (n); the original predicts nothing."""
        n = self.settings.batch_size
        parts = {"subject": subject_part(model, attack, n, generator)}
        if self.settings.class_weight:
            parts["class"] = class_part(model, attack, n, generator)
        return Batch(parts)

    def loss(self, f: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """L_adv."""
        total = adversarial(f["subject"], batch["subject"].target)
        if "class" in batch:
            total = total + self.settings.class_weight * error(f["class"], batch["class"].target)
        return total


class Imma(Adversarial):
    """Raises L_per after each step of a simulated attack."""

    settings_type: ClassVar[type[ImmunizeSettings]] = ImmaSettings
