"""The naive adversarial loss: raise the subject's diffusion loss, keep the class's. Kept for comparison.

    L_adv = −L_diff(x⁻, c_V) + w · L_diff(class picture, c_class)                  (APDM, Proposition 1)

The first term has no lower bound, so the run cannot converge, and the model's pictures decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.immunize.batch import Rows, noised
from unlikeness.immunize.data import pick
from unlikeness.immunize.losses import adversarial, error
from unlikeness.immunize.settings import ImmunizeSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.data import Kept
    from unlikeness.progress import Progress

__all__ = ["Adversarial"]


class Adversarial:
    """L_adv along simulated attacks."""

    settings_type: ClassVar[type[ImmunizeSettings]] = ImmunizeSettings

    def __init__(self, settings: ImmunizeSettings | None = None) -> None:
        self.settings = settings or self.settings_type()

    def prepare(self, original: TextToImage, kept: Sequence[Kept], progress: Progress | None = None) -> None:
        """Nothing: what it learns from is `kept`."""

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """[x⁻ (n), class pictures (n)]; φ is not asked."""
        n, kept = self.settings.batch_size, attack.kept
        which = torch.randint(kept.material.count, (n,), generator=generator)
        subject = pick(kept.material.subject, which, generator)
        c_V, c_class = attack.read(model)
        parts = [noised(model.schedule, subject, c_V, generator)]
        if self.settings.class_weight:
            member = torch.randint(len(kept.prior), (n,), generator=generator)
            parts.append(noised(model.schedule, pick(kept.prior, member, generator), c_class, generator))
        return Rows.cat(parts)

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """L_adv."""
        n = self.settings.batch_size
        total = adversarial(f[:n], rows.target[:n])
        if self.settings.class_weight:
            total = total + self.settings.class_weight * error(f[n:], rows.target[n:])
        return total
