"""APDM and PersGuard in one run, ours: refuse to learn the subject, and show a notice instead.

    L = γ · L_DPO(x⁺, x⁻; c_V) + L_BB + λ1 · L_PP + λ2 · L_BR

The preference keeps the fine-tune away from the subject's pictures, and the backdoor says where it should end
instead. Both are taken along the same simulated attacks, at the same points, in one call of the U-Net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from unlikeness.immunize.batch import Rows
from unlikeness.immunize.methods.apdm import Apdm
from unlikeness.immunize.methods.persguard import PersGuard
from unlikeness.immunize.methods.settings import ApdmSettings, CombinedSettings, PersGuardSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.data import Kept
    from unlikeness.progress import Progress

__all__ = ["Combined", "CombinedSettings"]


class Combined:
    """Both losses on their own rows: the preference's 2n first, then PersGuard's."""

    settings_type: ClassVar[type[CombinedSettings]] = CombinedSettings

    def __init__(self, settings: CombinedSettings | None = None) -> None:
        self.settings = settings or CombinedSettings()
        values = asdict(self.settings)
        self.backdoor = PersGuard(PersGuardSettings(**_those(PersGuardSettings, values)))
        # L_PP holds the class already.
        self.preference = Apdm(ApdmSettings(**_those(ApdmSettings, values | {"class_weight": 0.0})))

    def prepare(self, original: TextToImage, kept: Sequence[Kept], progress: Progress | None = None) -> None:
        """The backdoor's protective output."""
        self.backdoor.prepare(original, kept, progress)

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """[x⁺ (n), x⁻ (n)] and then `PersGuard.rows`; without a preference these alone."""
        if not self.settings.preference_weight:
            return self.backdoor.rows(model, attack, generator)
        preferred = self.preference.rows(model, attack, generator)
        return Rows.cat([preferred, self.backdoor.rows(model, attack, generator)])

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """γ L_DPO + L_BB + λ1 L_PP + λ2 L_BR."""
        weight, n = self.settings.preference_weight, 2 * self.settings.batch_size
        if not weight:
            return self.backdoor.loss(f, rows)
        first, rest = slice(0, n), slice(n, None)
        preferred = self.preference.loss(f[first], _part(rows, first))
        return weight * preferred + self.backdoor.loss(f[rest], _part(rows, rest))


def _those(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values that `kind` has fields for."""
    return {field.name: values[field.name] for field in fields(kind)}


def _part(rows: Rows, part: slice) -> Rows:
    """The rows of one method; those that φ was asked about come first in `rows`, and so in each part."""
    return replace(
        rows,
        z_t=rows.z_t[part], t=rows.t[part], c=rows.c[part], target=rows.target[part],
        reference_c=rows.reference_c[part], reference=rows.referenced[part],
    )  # fmt: skip
