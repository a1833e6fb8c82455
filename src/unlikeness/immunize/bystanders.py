"""Somebody else of a protected subject's class, who must stay learnable: a picture that φ drew, attacked like
a subject, with the attack's own loss as the protective one.

    L = w(t) · ‖f_θ'(z_t, t, c_V) − target‖² + prior_weight · w(t) · ‖f_θ'(z_t, t, c_class) − target‖²

Taken at the attacked weights θ', this is the first-order gradient of learning fast (FOMAML, Finn et al.
2017). It tells a model that has met only attacks which must fail that others must not. The weights w ≥ 1 are
those of what is preserved (`preserve`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.immunize.material import Kept, pick
from unlikeness.immunize.rows import Rows, noised
from unlikeness.immunize.weighting import preserved_weight, weighted_error
from unlikeness.personalize.material import Material

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import NoiseSchedule
    from unlikeness.immunize.attacks import Attack
    from unlikeness.immunize.settings import ImmunizeSettings

__all__ = ["Bystanders"]


class Bystanders:
    """What an attack on a bystander is, and what it asks of the U-Net."""

    def __init__(self, schedule: NoiseSchedule, settings: ImmunizeSettings) -> None:
        self.schedule, self.settings = schedule, settings

    def draw(self, protected: Kept, generator: torch.Generator) -> Kept:
        """One of the class pictures of `protected`, under its name, as all that an attacker has."""
        which = int(torch.randint(len(protected.prior), (), generator=generator))
        one = protected.prior[which : which + 1]
        return Kept(protected.subject, Material(one, 1, protected.prior), protected.prior)

    def pictures(self) -> int:
        """Rows of one batch."""
        return self.settings.batch_size * (2 if self.settings.prior_weight else 1)

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """[the bystander's picture (n), class pictures (n)]; φ is not asked."""
        n, kept = self.settings.batch_size, attack.kept
        own = pick(kept.material.subject, torch.zeros(n, dtype=torch.long), generator)
        c_V, c_class = attack.read(model)
        parts = [noised(model.schedule, own, c_V, generator)]
        if self.settings.prior_weight:
            which = torch.randint(len(kept.prior), (n,), generator=generator)
            member = pick(kept.prior, which, generator)
            parts.append(noised(model.schedule, member, c_class, generator))
        return Rows.cat(parts)

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """See the module."""
        s = self.settings
        own, members = slice(s.batch_size), slice(s.batch_size, None)
        w = preserved_weight(self.schedule, rows.t, s.preserve_cap)
        total = weighted_error(f[own], rows.target[own], w[own])
        if s.prior_weight:
            total = total + s.prior_weight * weighted_error(f[members], rows.target[members], w[members])
        return total
