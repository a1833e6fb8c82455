"""Somebody else of a protected subject's class, who must stay learnable: a picture that φ drew, attacked like
a subject, with the attack's own loss as the protective one.

    L = w(t) · ‖f_θ'(z_t, t, c_V) − target − shift‖² + prior_weight · w(t) · ‖f_θ'(z_t, t, c_class) − target‖²
    shift = f_φ(z_t, t, c_class in a place) − f_φ(z_t, t, c_class)

Taken at the attacked weights θ', this is the first-order gradient of learning fast (FOMAML, Finn et al.
2017). It tells a model that has met only attacks which must fail that others must not. The weights w ≥ 1 are
those of what is preserved (`preserve`). Where the method leads prompts elsewhere that name a place, a share
of the bystander's rows names one too: no picture shows them there, so that what φ makes of the place, for the
class, is added to what their own picture asks for (as answers compose: Liu et al. 2022, Eq. 11). Without a
place shift = 0, and this is the attacker's loss.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.immunize.batch import Rows, ask, noised
from unlikeness.immunize.data import Kept, pick
from unlikeness.immunize.weighting import preserved_weight, weighted_error
from unlikeness.personalize.material import Material

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.settings import ImmunizeSettings

__all__ = ["Bystanders"]


class Bystanders:
    """What an attack on a bystander is, and what it asks of the U-Net."""

    def __init__(self, original: TextToImage, settings: ImmunizeSettings, precision: str) -> None:
        self.original, self.settings, self.precision = original, settings, precision

    def draw(self, protected: Kept, generator: torch.Generator) -> Kept:
        """One of the class pictures of `protected`, under its name, as all that an attacker has."""
        which = int(torch.randint(len(protected.prior), (), generator=generator))
        one = protected.prior[which : which + 1]
        return Kept(protected.subject, Material(one, 1, protected.prior), protected.prior)

    def pictures(self) -> int:
        """Rows of one batch."""
        return self.settings.batch_size * (2 if self.settings.prior_weight else 1)

    def asked(self) -> int:
        """Rows of φ for one batch."""
        return self.settings.batch_size * 2 if self.settings.places else 0

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """[the bystander's picture (n), class pictures (n)], with targets as the loss has them."""
        n, kept = self.settings.batch_size, attack.kept
        own = pick(kept.material.subject, torch.zeros(n, dtype=torch.long), generator)
        c_V, c_class = attack.read(model)
        parts = [noised(model.schedule, own, c_V, generator)]
        if self.settings.places:
            parts = [self._placed(parts[0], model, attack, generator)]
        if self.settings.prior_weight:
            which = torch.randint(len(kept.prior), (n,), generator=generator)
            member = pick(kept.prior, which, generator)
            parts.append(noised(model.schedule, member, c_class, generator))
        return Rows.cat(parts)

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """See the module."""
        s = self.settings
        own, members = slice(s.batch_size), slice(s.batch_size, None)
        w = preserved_weight(self.original.schedule, rows.t, s.preserve_cap)
        total = weighted_error(f[own], rows.target[own], w[own])
        if s.prior_weight:
            total = total + s.prior_weight * weighted_error(f[members], rows.target[members], w[members])
        return total

    def _placed(self, rows: Rows, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """The same rows, about the share `bystanders_placed` of them somewhere."""
        subject, places, n = attack.subject, self.settings.places, len(rows.t)
        which = torch.randint(len(places), (n,), generator=generator).tolist()
        there = (torch.rand(n, generator=generator) < self.settings.bystanders_placed).tolist()
        pairs = [
            (subject.prompt(places[i]), subject.prompt(places[i], of_class=True))
            if moved
            else (attack.prompt, attack.class_prompt)
            for i, moved in zip(which, there, strict=True)
        ]
        c = model.condition([own for own, _ in pairs])
        c_there = self.original.condition([of for _, of in pairs])
        c_plain = self.original.condition([attack.class_prompt]).expand(len(c_there))
        [both] = ask(self.original, [replace(rows, reference_c=c_there, contrast_c=c_plain)], self.precision)
        return replace(rows, c=c, target=rows.target + both.shift.to(rows.target))
