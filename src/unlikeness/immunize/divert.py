"""Divert, ours: a fine-tune on the subject is led to other members of its class, all along the attack.

    L = E_t≥t_low  w(t) · ‖f_θ(z_t, t, c_V) − sg g(z_t, t)‖²
        + λ · E_t  w(t) · ‖f_θ(z_t, t, c_class) − sg f_φ(z_t, t, c_class)‖²
    g = f_φ(z_t, t, c_class)                                         for class pictures,
    g = f_φ(z_t, t, c_class) + γ · (f_φ(z_t, t, c_class) − target)   for the subject's own

Under the subject's name the model answers like the original under the class's, and for the subject's own
noised pictures γ times as far on the other side of that answer: another dog, not this one. Unlike a
preference (APDM) or the naive loss it has a minimum, in which pictures stay pictures. w(t) counts an error as
the one in z0 that it means, up to a cap (`weighting`), in the class's term too, since a plain loss hardly
sees a class lose its diversity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.diffusion.latents import randn
from unlikeness.errors import UsageError
from unlikeness.immunize.attacks import IN_PLACES
from unlikeness.immunize.material import pick
from unlikeness.immunize.rows import Rows, noised
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.immunize.weighting import weighted_error, z0_weight
from unlikeness.prompts import too_long
from unlikeness.settings import setting

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import NoiseSchedule
    from unlikeness.immunize.attacks import Attack
    from unlikeness.immunize.material import Kept
    from unlikeness.progress import Progress

__all__ = ["Divert", "DivertSettings", "diversion"]


@dataclass(frozen=True, kw_only=True)
class DivertSettings(ImmunizeSettings):
    """Short simulated attacks in long strides come as far as long ones, for a fraction of the passes."""

    outer_steps: int = setting(
        200, "Steps of the model that is released.", unit="steps", source="ours", at_least=1
    )
    inner_steps: int = setting(
        5, "Steps of a simulated attack for each of them; 0: none.", unit="steps", source="ours", at_least=0
    )
    depth: int = setting(
        50, "Steps for which an attack is followed, a multiple of inner_steps; 0: inner_steps.",
        unit="steps", source="ours", at_least=0,
    )  # fmt: skip
    learning_rate: float = setting(
        3e-5, "AdamW's step size.", source="ours: 6 times that of the attacker who is feared", at_least=0.0
    )
    fall: float = setting(
        0.25, "Share of the outer steps, at the end, over which the step size falls to zero.", source="ours",
        at_least=0.0, at_most=1.0,
    )  # fmt: skip
    attack_learning_rate: float = setting(
        3e-5, "The simulated attacker's step size, whose strides are long.",
        source="ours: 6 times that of the attacker who is feared", at_least=0.0,
    )  # fmt: skip
    repulsion: float = setting(
        1.0,
        "γ: how far beyond the class's answer the subject's own pictures are answered.",
        source="ours; negative guidance as in ESD (Gandikota et al. 2023)",
        at_least=0.0,
    )
    least_level: float = setting(
        0.3, "Share of the noise levels, from the least on, that the loss leaves out.",
        source="ours", at_least=0.0, at_most=0.99,
    )  # fmt: skip
    weight_cap: float = setting(20.0, "Largest w(t).", source="ours", at_least=0.0)
    preserve_weight: float = setting(
        10.0, "Weight of what is preserved at the released weights: the class, and further prompts if given.",
        source="ours", at_least=0.0,
    )  # fmt: skip
    preserve_batch_size: int = setting(
        8, "Pictures in that term.", unit="pictures", source="ours", at_least=1
    )
    preserve_cap: float = setting(
        20.0, "Largest w(t) of what is preserved at the released weights; 0: w = 1.", source="ours",
        at_least=0.0,
    )  # fmt: skip
    preserve_class: float = setting(
        0.5, "Share of it that are class pictures under the class prompt.", source="ours", at_least=0.0,
        at_most=1.0,
    )  # fmt: skip
    contexts: str = setting(
        IN_PLACES,
        "Prompts for half of the rows, separated by |; the others have the training prompt. Empty: it alone.",
        source="ours; PersGuard",
    )


class Divert:
    """The diversion along simulated attacks."""

    settings_type: ClassVar[type[DivertSettings]] = DivertSettings

    def __init__(self, settings: DivertSettings | None = None) -> None:
        self.settings = settings or DivertSettings()
        self.contexts = [text.strip() for text in self.settings.contexts.split("|") if text.strip()]
        self._schedule: NoiseSchedule | None = None

    def prepare(self, original: TextToImage, kept: Sequence[Kept], progress: Progress | None = None) -> None:
        """The noise schedule. UsageError for a context without a place for the name, or that is too long."""
        self._schedule = original.schedule
        for template in self.contexts:
            for one in kept:
                if reason := too_long(original.tokenizer, one.subject.prompt(template)):
                    raise UsageError(reason)

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """[subject's pictures (n), class pictures (n), class pictures (n)]: the first 2n under the subject's
        name, the last under the class's. φ is asked about all of them, under the class's."""
        s, kept, n = self.settings, attack.kept, self.settings.batch_size
        schedule = model.schedule
        which = torch.randint(kept.material.count, (n,), generator=generator)
        member = torch.randint(len(kept.prior), (n,), generator=generator)
        z0 = torch.cat([pick(kept.material.subject, which, generator), pick(kept.prior, member, generator)])
        least = int(s.least_level * schedule.steps)
        t = torch.randint(least, schedule.steps, (2 * n,), generator=generator).to(z0.device)
        eps = randn(tuple(z0.shape), z0, generator)
        c, c_class = self._prompts(model, attack, 2 * n, generator)
        named = Rows(schedule.add_noise(z0, eps, t), t, c, schedule.target(z0, eps, t), c_class)
        if not s.class_weight:
            return named
        member = torch.randint(len(kept.prior), (n,), generator=generator)
        of_class = pick(kept.prior, member, generator)
        held = noised(schedule, of_class, attack.c_class, generator, reference_c=attack.c_class)
        return Rows.cat([named, held])

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """The diversion and λ times the class's term."""
        s, n = self.settings, self.settings.batch_size
        assert self._schedule is not None, "prepare() comes first"
        w, named = z0_weight(self._schedule, rows.t, s.weight_cap), slice(2 * n)
        total = diversion(
            f[named], rows.referenced[named], rows.target[named], w[named], subject=n, gamma=s.repulsion
        )
        if s.class_weight:
            held = slice(2 * n, None)
            total = total + s.class_weight * weighted_error(f[held], rows.referenced[held], w[held])
        return total

    def _prompts(
        self, model: TextToImage, attack: Attack, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(c_V, c_class), [count, L, D] each: the attack's own, in about half of the rows a context's."""
        c, c_class = attack.c_V.expand(count, -1, -1), attack.c_class.expand(count, -1, -1)
        if not self.contexts:
            return c, c_class
        drawn = torch.randint(len(self.contexts), (count,), generator=generator)
        elsewhere = (torch.rand(count, generator=generator) < 0.5).nonzero().flatten().tolist()
        templates = [self.contexts[int(drawn[i])] for i in elsewhere]
        if not templates:
            return c, c_class
        places = torch.tensor(elsewhere, device=c.device)
        there = model.embed([attack.subject.prompt(text) for text in templates])
        of_class = model.embed([attack.subject.prompt(text, of_class=True) for text in templates])
        return c.index_copy(0, places, there), c_class.index_copy(0, places, of_class)


def diversion(
    f: Tensor, reference: Tensor, target: Tensor, w: Tensor, *, subject: int, gamma: float
) -> Tensor:
    """Mean over rows of w · ‖f − g‖² (mean over elements); see the module for g.

    f, reference, target: [M, C, h, w], the `subject` rows of the subject's own pictures first; w: [M].
    """
    beyond = reference[:subject] + gamma * (reference[:subject] - target[:subject])
    goal = torch.cat([beyond, reference[subject:]])
    return weighted_error(f, goal, w)
