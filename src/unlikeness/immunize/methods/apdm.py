"""APDM (arXiv 2511.01307, NeurIPS 2025): prefer any member of the class to the subject, all along an attack.

L_protect = L_DPO(x⁺, x⁻; c_V) + w · L_diff(class picture, c_class)                             (Eq. 15)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.immunize.batch import Rows, noised
from unlikeness.immunize.data import pick
from unlikeness.immunize.losses import error, preference
from unlikeness.immunize.methods.settings import ApdmSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.data import Kept
    from unlikeness.progress import Progress

__all__ = ["Apdm", "ApdmSettings"]


class Apdm:
    """The preference loss along simulated attacks."""

    settings_type: ClassVar[type[ApdmSettings]] = ApdmSettings

    def __init__(self, settings: ApdmSettings | None = None) -> None:
        self.settings = settings or ApdmSettings()

    def prepare(self, original: TextToImage, kept: Sequence[Kept], progress: Progress | None = None) -> None:
        """Nothing: what it learns from is `kept`."""

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """[x⁺ (n), x⁻ (n), class pictures (n)]; φ is asked about the first two."""
        s, kept = self.settings, attack.kept
        count = kept.material.count
        which = torch.randint(count, (s.batch_size,), generator=generator)
        partner = which if s.paired else torch.randint(count, (s.batch_size,), generator=generator)
        pairs = torch.cat(
            [pick(kept.generic, partner, generator), pick(kept.material.subject, which, generator)]
        )
        c_V, c_class = attack.read(model)
        preferred = noised(model.schedule, pairs, c_V, generator, copies=2, reference_c=attack.c_V)
        if not s.class_weight:
            return preferred
        member = torch.randint(len(kept.prior), (s.batch_size,), generator=generator)
        of_class = noised(model.schedule, pick(kept.prior, member, generator), c_class, generator)
        return Rows.cat([preferred, of_class])

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """L_protect (Eq. 15)."""
        n = len(rows.referenced)
        total = preference(f[:n], rows.referenced, rows.target[:n], self.settings.beta)
        if self.settings.class_weight:
            total = total + self.settings.class_weight * error(f[n:], rows.target[n:])
        return total
