"""Simulated attacks on unprotected subjects, which must succeed.

Trained only on attacks that must fail, a model resists every fine-tune. So some attacks target a generated
class picture under a protected subject's name, with the attacker's own loss as the protective one:

    L = w(t) · ‖f_θ'(z_t, t, c_V) − target − shift‖² + prior_weight · w(t) · ‖f_θ'(z_t, t, c_class) − target‖²
    shift = f_φ(z_t, t, c_class in a place) − f_φ(z_t, t, c_class)

Taken at the attacked weights θ', this is the first-order gradient of learning fast (FOMAML, Finn et al.
2017). The weights w ≥ 1 are those of `preservation`. Where the method diverts prompts that name a place, a
share of the pictures has such a prompt too. No picture shows the subject there, so the original's change from
the class to the class in that place is added to the target (predictions compose: Liu et al. 2022, Eq. 11).
Without a place shift = 0, and this is the attacker's loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.immunize.batch import Batch, Part, class_part, noised, with_references
from unlikeness.immunize.data import ProtectedSubject, pick
from unlikeness.immunize.losses import preserved_weight, weighted_error
from unlikeness.personalize.data import Data

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.settings import ImmunizeSettings

__all__ = ["Unprotected"]


class Unprotected:
    """Draws unprotected subjects, and is the protective loss of an attack on one."""

    def __init__(self, original: TextToImage, settings: ImmunizeSettings, precision: str) -> None:
        self.original, self.settings, self.precision = original, settings, precision

    def draw(self, protected: ProtectedSubject, generator: torch.Generator) -> ProtectedSubject:
        """An attacker's data of one unprotected subject: a class picture of `protected`, under its name."""
        which = int(torch.randint(len(protected.prior), (), generator=generator))
        one = protected.prior[which : which + 1]
        return ProtectedSubject(protected.subject, Data(one, 1, protected.prior), protected.prior)

    def batch(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Batch:
        """ "subject" (n): the attacked picture, its target shifted where a place is named; "class" (n)."""
        n, target = self.settings.batch_size, attack.target
        own = pick(target.data.subject, torch.zeros(n, dtype=torch.long), generator)
        parts = {"subject": noised(model.schedule, own, attack.read(model)[0], generator)}
        if self.settings.places:
            parts["subject"] = self._placed(parts["subject"], model, attack, generator)
        if self.settings.attack_prior_weight:
            parts["class"] = class_part(model, attack, n, generator)
        return Batch(parts)

    def loss(self, f: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """See the module."""
        s = self.settings
        weights = {"subject": 1.0, "class": s.attack_prior_weight}
        total = next(iter(f.values())).new_zeros(())
        for name, part in batch.parts.items():
            w = preserved_weight(self.original.schedule, part.t, s.preserve_cap)
            total = total + weights[name] * weighted_error(f[name], part.target, w)
        return total

    def _placed(self, part: Part, model: TextToImage, attack: Attack, generator: torch.Generator) -> Part:
        """The same part, with a place in the prompts of about the share `unprotected_placed`."""
        subject, places, n = attack.subject, self.settings.places, len(part)
        which = torch.randint(len(places), (n,), generator=generator).tolist()
        there = (torch.rand(n, generator=generator) < self.settings.unprotected_placed).tolist()
        pairs = [
            (subject.prompt(places[i]), subject.prompt(places[i], of_class=True))
            if moved
            else (attack.prompt, attack.class_prompt)
            for i, moved in zip(which, there, strict=True)
        ]
        c = model.condition([own for own, _ in pairs])
        c_there = self.original.condition([of_class for _, of_class in pairs])
        c_plain = self.original.condition([attack.class_prompt]).expand(len(c_there))
        asked = Batch({"subject": replace(part, reference_c=c_there, contrast_c=c_plain)})
        [found] = with_references(self.original, [asked], self.precision)
        return replace(part, c=c, target=part.target + found["subject"].shift.to(part.target))
