"""Divert, ours: a fine-tune on the subject is led elsewhere, all along the attack.

    L = E_t≥t_low  w(t) · ‖f_θ(z_t, t, c_V) − sg g(z_t, t)‖²
        + λ · E_t  w(t) · ‖f_θ(z_t, t, c_class) − sg f_φ(z_t, t, c_class)‖²
    g = f_φ(z_t, t, c')                                     for pictures of where it is led,
    g = f_φ(z_t, t, c') + γ · (f_φ(z_t, t, c') − target)    for the subject's own

Under the subject's name the model answers like the original under other words c', and for the subject's own
noised pictures γ times as far on the other side of that answer. With the class's words it ends in another
dog, not this one; with those of another class, or without the subject, in a notice as PersGuard's
(`behaviours`), meant to survive the fine-tune; for a pattern, g bears the mark too, in a small part of the
picture, whose errors count `mark_weight` times as much; for an erasure, f_φ(c') may give way to f_φ(c') + η
(f_φ(c') − f_φ(c_class)), since words that name no class draw the subject's now and then. Unlike a preference
(APDM) or the naive loss this has a minimum, in which pictures stay pictures. w(t) counts an error as the one
in z0 that it means, up to a cap (`weighting`), in the class's term too, since a plain loss hardly sees a
class lose its diversity.

Pictures are drawn with guidance, in which small changes of the answers with and without words show several
times as large; a LoRA leaves the loss above nearly as it was, and the subject still shows. With `guidance`
u > 0 the first term is about what is drawn: f_θ and g become f_θ(∅) + u (f_θ(c_V) − f_θ(∅)) and
f_φ(∅) + u (g − f_φ(∅)) (Ho & Salimans 2022, Eq. 6), over u² + (u − 1)², so that errors with and without
words that have nothing to do with each other weigh as before. This moves f_θ(∅) too, away from what is led
to, and with it every guided picture, unless it is held (`preserve_empty`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.autoencoders import randn
from unlikeness.immunize.attackers import check_prompts, parts
from unlikeness.immunize.batch import Rows, noised
from unlikeness.immunize.data import pick
from unlikeness.immunize.methods.divert_settings import DivertSettings
from unlikeness.immunize.outputs import Behaviour, notices
from unlikeness.immunize.preservation import guided
from unlikeness.immunize.weighting import weighted_error, z0_weight

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import Schedule
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.data import Kept
    from unlikeness.progress import Progress

__all__ = ["Divert", "DivertSettings", "diverted"]


class Divert:
    """The diversion along simulated attacks."""

    settings_type: ClassVar[type[DivertSettings]] = DivertSettings

    def __init__(self, settings: DivertSettings | None = None) -> None:
        self.settings = settings or DivertSettings()
        self.contexts = self.settings.places
        self.templates = [*parts(self.settings.templates), *self.contexts]
        self._schedule: Schedule | None = None
        self._notices: dict[int, Behaviour] = {}
        self._original: TextToImage | None = None

    def prepare(self, original: TextToImage, kept: Sequence[Kept], progress: Progress | None = None) -> None:
        """Draw the notices. UsageError for a context without a place for the name, or that is too long."""
        s = self.settings
        self._schedule, self._original = original.schedule, original
        check_prompts(original, kept, s.identifiers, self.contexts)
        self._notices = notices(
            original, kept, s.behaviour, s.target_noun, self.templates, per=s.pictures,
            seed=s.class_seed + 800_000, steps=s.class_steps,
            pattern=Path(s.pattern) if s.pattern else None, avoid_class=s.avoidance > 0, progress=progress,
        )  # fmt: skip

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """[subject's pictures (n), pictures of where it is led (n), class pictures (n)]: the first 2n under
        the subject's name, the last under the class's. φ is asked about all of them, under the words for
        where it is led and under the class's. With guidance the first 2n once more, without words."""
        s, kept, n = self.settings, attack.kept, self.settings.batch_size
        schedule, notice = model.schedule, self._notices.get(id(attack.kept))
        template = self._draw(attack, 2 * n, generator)
        c, c_led = self._prompts(model, attack, template, notice)
        which = torch.randint(kept.material.count, (n,), generator=generator)
        own = pick(kept.material.subject, which, generator)
        led = notice.draw(template[n:], generator) if notice else self._members(kept, n, generator)
        z0 = torch.cat([own, led])
        least = int(s.least_level * schedule.steps)
        t = torch.randint(least, schedule.steps, (2 * n,), generator=generator).to(z0.device)
        eps = randn(tuple(z0.shape), z0, generator)
        rows = Rows(schedule.add_noise(z0, eps, t), t, c, schedule.target(z0, eps, t), c_led)
        if s.class_weight:
            member = self._members(kept, n, generator)
            held = noised(schedule, member, attack.read(model)[1], generator, reference_c=attack.c_class)
            rows = Rows.cat([rows, held])
        if s.guidance:
            named = slice(2 * n)
            rows = Rows.cat([rows, self._unguided(model, rows.z_t[named], rows.t[named], rows.target[named])])
        if notice is None:
            return rows
        away = None if notice.avoided is None else notice.avoided[template]
        return replace(rows, mark=notice.mark, contrast_c=away)

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """The diversion and λ times the class's term."""
        s, n = self.settings, self.settings.batch_size
        assert self._schedule is not None, "prepare() comes first"
        w, named = z0_weight(self._schedule, rows.t, s.weight_cap), slice(2 * n)
        led = rows.referenced[named]
        if rows.contrast is not None:
            led = led + s.avoidance * rows.shift
        goal = diverted(led, rows.target[named], subject=n, gamma=s.repulsion)
        if rows.mark is not None:
            goal = rows.mark.placed(goal, rows.z_t[named], rows.t[named], self._schedule)
        answer, spread = f[named], 1.0
        if s.guidance:
            empty = slice(len(f) - 2 * n, None)
            answer = guided(torch.cat([answer, f[empty]]), s.guidance)
            goal = guided(torch.cat([goal, rows.referenced[empty]]), s.guidance)
            spread = s.guidance**2 + (s.guidance - 1) ** 2
        cells = None if rows.mark is None else rows.mark.counts(s.mark_weight)
        total = weighted_error(answer, goal, w[named], cells) / spread
        if s.class_weight:
            held = slice(2 * n, 3 * n)
            total = total + s.class_weight * weighted_error(f[held], rows.referenced[held], w[held])
        return total

    def _unguided(self, model: TextToImage, z_t: Tensor, t: Tensor, target: Tensor) -> Rows:
        """The same noised latents without words."""
        assert self._original is not None, "prepare() comes first"
        c, c_original = (one.condition([""]).expand(len(z_t)) for one in (model, self._original))
        return Rows(z_t, t, c, target, c_original)

    def _members(self, kept: Kept, count: int, generator: torch.Generator) -> Tensor:
        """z0 of so many class pictures."""
        return pick(kept.prior, torch.randint(len(kept.prior), (count,), generator=generator), generator)

    def _draw(self, attack: Attack, count: int, generator: torch.Generator) -> Tensor:
        """Indices into `templates`, long [count]: the attack's own, in about half of the rows a context."""
        own = [attack.subject.prompt(template) for template in self.templates].index(attack.prompt)
        chosen = torch.full((count,), own)
        if not self.contexts:
            return chosen
        first = len(self.templates) - len(self.contexts)
        drawn = first + torch.randint(len(self.contexts), (count,), generator=generator)
        return torch.where(torch.rand(count, generator=generator) < 0.5, drawn, chosen)

    def _prompts(
        self, model: TextToImage, attack: Attack, template: Tensor, notice: Behaviour | None
    ) -> tuple[Condition, Condition]:
        """(c_V, the words for where it is led), `count` each."""
        subject, texts = attack.subject, [self.templates[i] for i in template.tolist()]
        c = model.condition([subject.prompt(text) for text in texts])
        if notice is not None and notice.c is not None:
            return c, notice.c[template]
        assert self._original is not None, "prepare() comes first"
        return c, self._original.condition([subject.prompt(text, of_class=True) for text in texts])


def diverted(reference: Tensor, target: Tensor, *, subject: int, gamma: float) -> Tensor:
    """g [M, C, h, w] from where it is led, f_φ, and the diffusion target; the `subject` rows of the subject's
    own pictures come first. See the module."""
    beyond = reference[:subject] + gamma * (reference[:subject] - target[:subject])
    return torch.cat([beyond, reference[subject:]])
