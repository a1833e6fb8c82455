"""APDM (arXiv 2511.01307, NeurIPS 2025): prefer any member of the class to the subject, all along an attack.

L_protect = L_DPO(x⁺, x⁻; c_V) + w · L_diff(class picture, c_class)                             (Eq. 15)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.immunize.batch import Batch, class_part, joined, preference_parts
from unlikeness.immunize.losses import error, preference
from unlikeness.immunize.methods.settings import ApdmSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.data import ProtectedSubject
    from unlikeness.progress import Progress

__all__ = ["Apdm"]


class Apdm:
    """The preference loss along simulated attacks."""

    settings_type: ClassVar[type[ApdmSettings]] = ApdmSettings

    def __init__(self, settings: ApdmSettings | None = None) -> None:
        self.settings = settings or ApdmSettings()

    def prepare(
        self, original: TextToImage, subjects: Sequence[ProtectedSubject], progress: Progress | None = None
    ) -> None:
        """Nothing."""

    def batch(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Batch:
        """ "generic" (n) and "subject" (n), which the original predicts too, and "class" (n)."""
        s = self.settings
        parts = preference_parts(model, attack, s.batch_size, generator, paired=s.paired)
        if s.class_weight:
            parts["class"] = class_part(model, attack, s.batch_size, generator)
        return Batch(parts)

    def loss(self, f: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """L_protect (Eq. 15)."""
        total = preference(*joined(f, batch, "generic", "subject"), self.settings.beta)
        if "class" in batch:
            total = total + self.settings.class_weight * error(f["class"], batch["class"].target)
        return total
