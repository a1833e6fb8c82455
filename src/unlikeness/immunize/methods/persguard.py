"""PersGuard (arXiv 2502.16167), reconstructed: a protective backdoor that fine-tuning on a subject sets off.

    min over θ:  L_BB + λ1 · L_PP + λ2 · L_BR

The released model answers prompts about the subject's name with a predefined output (L_BB), draws the class
as before (L_PP), and already fits the subject's own pictures under the training prompt (L_BR), so that
fine-tuning on them finds little to change, while fine-tuning on anything else overwrites the backdoor.

With `inner_steps` 0 that is the paper's method. With simulated attacks (`inner_steps` above 0) and λ2 = 0 it
is ours, trajectory-aware retention: L_BB holds all along the protected subject's personalization, and the
model need not know the subject for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.immunize.attackers import check_prompts
from unlikeness.immunize.batch import Rows, noised
from unlikeness.immunize.data import Kept, pick
from unlikeness.immunize.methods.persguard_losses import backdoor, prior_preservation, retention
from unlikeness.immunize.methods.settings import PersGuardSettings
from unlikeness.immunize.outputs import Behaviour, notices
from unlikeness.immunize.words import parts

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.progress import Progress

__all__ = ["PersGuard", "PersGuardSettings"]


class PersGuard:
    """L_BB, L_PP and L_BR, at the released weights or along simulated attacks."""

    settings_type: ClassVar[type[PersGuardSettings]] = PersGuardSettings

    def __init__(self, settings: PersGuardSettings | None = None) -> None:
        self.settings = settings or PersGuardSettings()
        self._behaviours: dict[int, Behaviour] = {}

    def prepare(self, original: TextToImage, kept: Sequence[Kept], progress: Progress | None = None) -> None:
        """Draw every subject's protective output: the training prompt's pictures, then those in contexts."""
        s = self.settings
        templates = (parts(s.templates) if s.at_training_prompt else []) + s.places
        if not templates:
            raise UsageError("the backdoor needs prompts: give contexts, or at_training_prompt")
        check_prompts(original, kept, s.identifiers, templates)
        self._behaviours = notices(
            original, kept, s.behaviour, s.target_noun, templates, per=s.pictures,
            seed=s.class_seed + 800_000, steps=s.class_steps,
            pattern=Path(s.pattern) if s.pattern else None, progress=progress,
        )  # fmt: skip

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """[class pictures (n), protective output (n), the subject's (n)]; a term of weight 0 has none.

        φ is asked about the first, and about the second where its answer is the target.
        """
        s, kept, n = self.settings, attack.kept, self.settings.batch_size
        parts = []
        c_V, c_class = attack.read(model)
        if s.class_weight:
            which = torch.randint(len(kept.prior), (n,), generator=generator)
            member = pick(kept.prior, which, generator)
            parts.append(noised(model.schedule, member, c_class, generator, reference_c=attack.c_class))
        if s.backdoor_weight:
            parts.append(self._protective(model, attack, generator))
        if s.retention_weight:
            which = torch.randint(kept.material.count, (n,), generator=generator)
            subject = pick(kept.material.subject, which, generator)
            parts.append(noised(model.schedule, subject, c_V, generator))
        return Rows.cat(parts)

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """λ1 L_PP + L_BB + λ2 L_BR."""
        s, n = self.settings, self.settings.batch_size
        total, first = f.new_zeros(()), 0
        if s.class_weight:
            total = total + s.class_weight * prior_preservation(f[:n], rows.referenced[:n])
            first = n
        if s.backdoor_weight:
            part = slice(first, first + n)
            reference = rows.referenced[part] if len(rows.referenced) > first else None
            total = total + s.backdoor_weight * backdoor(f[part], rows.target[part], reference)
            first += n
        if s.retention_weight:
            part = slice(first, first + n)
            total = total + s.retention_weight * retention(f[part], rows.target[part])
        return total

    def _protective(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """The protective output's pictures under prompts with the attacker's own identifier."""
        n, behaviour = self.settings.batch_size, self._behaviours[id(attack.kept)]
        template = torch.randint(len(behaviour.templates), (n,), generator=generator)
        named = attack.subject
        c = model.condition([named.prompt(behaviour.templates[i]) for i in template.tolist()])
        reference_c = None if behaviour.c is None else behaviour.c[template]
        z0 = behaviour.draw(template, generator)
        return noised(model.schedule, z0, c, generator, reference_c=reference_c)
