"""Divert, ours: give a fine-tune on the subject another target, all along the attack.

    L = E_t≥t_low  w(t) · ‖f_θ(z_t, t, c_V) − sg g(z_t, t)‖²
        + λ · E_t  w(t) · ‖f_θ(z_t, t, c_class) − sg f_φ(z_t, t, c_class)‖²
    g = f_φ(z_t, t, c')                                     for pictures of the protective output,
    g = f_φ(z_t, t, c') + γ · (f_φ(z_t, t, c') − target)    for the subject's own

Under the subject's name the model predicts like the original under other words c'. For the subject's own
noised pictures the target lies γ times as far beyond that prediction. With the class's words the fine-tune
draws another dog, not this one; with those of a protective output (`outputs`) it draws that. For a pattern g
also has the watermark, in a small part of the picture, where errors weigh `pattern_weight`. For an erasure
f_φ(c') may be f_φ(c') + η (f_φ(c') − f_φ(c_class)), since words without a class may still draw it. Unlike a
preference (APDM) or the naive loss this has a minimum, at which pictures stay pictures. The weight w(t)
counts an error as the error in z0 that it means, up to a cap (`losses.z0_weight`). The class term has it too,
since a plain loss hardly reacts when a class loses its diversity.

Pictures are generated with guidance, which magnifies small changes of the predictions with and without a
prompt: after a LoRA the loss above is nearly as it was, and the subject still shows. With `guidance` u > 0
the first term compares guided predictions (Ho & Salimans 2022, Eq. 6): f_∅ + u (f_θ(c_V) − f_∅) with f_∅ of
the model, and f_φ(∅) + u (g − f_φ(∅)). It is divided by u² + (u − 1)², so that independent errors with and
without a prompt weigh as before. This moves f_θ(∅) too, and with it every guided picture, unless
`preserve_empty` holds it.

The method `notice` is `divert` with a protective output and the settings under which unprotected subjects
stay learnable. Attacks are deeper, and after the first part of the run every third is on an unprotected
subject. The model moves after every protective gradient. Predictions are guided, and the empty prompt's are
preserved. High noise, where pictures begin, weighs most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.immunize.attackers import check_prompts
from unlikeness.immunize.batch import Batch, Part, class_part, noised
from unlikeness.immunize.data import ProtectedSubject
from unlikeness.immunize.losses import guided, weighted_error, z0_weight
from unlikeness.immunize.methods.settings import DivertSettings, NoticeSettings
from unlikeness.immunize.outputs import ProtectiveOutput, draw_outputs

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.progress import Progress

__all__ = ["Divert", "Notice"]


class Divert:
    """The diversion along simulated attacks."""

    settings_type: ClassVar[type[DivertSettings]] = DivertSettings

    def __init__(self, settings: DivertSettings | None = None) -> None:
        self.settings = settings or self.settings_type()
        self.prompts = [*self.settings.attack_prompts, *self.settings.places]
        self.outputs: dict[ProtectedSubject, ProtectiveOutput] = {}
        self._original: TextToImage | None = None

    @property
    def original(self) -> TextToImage:
        """The original model."""
        assert self._original is not None, "prepare() comes first"
        return self._original

    def prepare(
        self, original: TextToImage, subjects: Sequence[ProtectedSubject], progress: Progress | None = None
    ) -> None:
        """Draw the protective outputs. UsageError for a prompt that does not fit."""
        s = self.settings
        self._original = original
        check_prompts(original, subjects, s, s.places)
        self.outputs = draw_outputs(
            original, subjects, s, self.prompts, avoid_class=s.avoidance > 0, progress=progress
        )

    def batch(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Batch:
        """ "subject" and "output" (n each) under the subject's name; "class" (n) under the class's.

        With guidance also "empty" (2n): the first two once more, with the empty prompt. The original predicts
        all parts, the first two under the protective output's words.
        """
        s, target, n = self.settings, attack.target, self.settings.batch_size
        output = self.outputs.get(target)
        prompt = self._draw(attack, 2 * n, generator)
        c, c_output = self._conditions(model, attack, prompt, output)
        own = target.own(n, generator)
        other = output.draw(prompt[n:], generator) if output else target.members(n, generator)
        named = noised(
            model.schedule, torch.cat([own, other]), c, generator, reference_c=c_output,
            least=int(s.least_level * model.schedule.steps),
        )  # fmt: skip
        avoided = None if output is None or output.avoided is None else output.avoided
        if avoided is not None:
            named = replace(named, contrast_c=avoided[prompt])
        parts = {"subject": named[:n], "output": named[n:]}
        if s.class_weight:
            parts["class"] = class_part(model, attack, n, generator, held=True)
        if s.guidance:
            empty = [one.condition([None]).expand(len(named)) for one in (model, self.original)]
            parts["empty"] = replace(named, c=empty[0], reference_c=empty[1], contrast_c=None)
        return Batch(parts, None if output is None else output.watermark)

    def loss(self, f: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The diversion and λ times the class term."""
        s, schedule = self.settings, self.original.schedule
        both = [batch["subject"], batch["output"]]
        z_t, t = torch.cat([part.z_t for part in both]), torch.cat([part.t for part in both])
        w = z0_weight(schedule, t, s.weight_cap)
        goal = torch.cat([self._goal(part, repelled=part is both[0]) for part in both])
        answer, spread, cells = torch.cat([f["subject"], f["output"]]), 1.0, None
        if batch.watermark is not None:
            goal = batch.watermark.placed(goal, z_t, t, schedule)
            cells = batch.watermark.weights(s.pattern_weight)
        if s.guidance:
            answer = guided(answer, f["empty"], s.guidance)
            goal = guided(goal, batch["empty"].predicted, s.guidance)
            spread = s.guidance**2 + (s.guidance - 1) ** 2
        total = weighted_error(answer, goal, w, cells) / spread
        if "class" in batch:
            held = batch["class"]
            w = z0_weight(schedule, held.t, s.weight_cap)
            total = total + s.class_weight * weighted_error(f["class"], held.predicted, w)
        return total

    def _goal(self, part: Part, *, repelled: bool) -> Tensor:
        """g of the module; repelled: for the subject's own pictures."""
        reference = part.predicted
        if part.contrast is not None:
            reference = reference + self.settings.avoidance * part.shift
        return reference + self.settings.repulsion * (reference - part.target) if repelled else reference

    def _draw(self, attack: Attack, count: int, generator: torch.Generator) -> Tensor:
        """Indices into `prompts`, long [count]: the attack's own, in about half of the cases a context."""
        own = [attack.subject.prompt(prompt) for prompt in self.prompts].index(attack.prompt)
        chosen, contexts = torch.full((count,), own), len(self.settings.places)
        if not contexts:
            return chosen
        drawn = len(self.prompts) - contexts + torch.randint(contexts, (count,), generator=generator)
        return torch.where(torch.rand(count, generator=generator) < 0.5, drawn, chosen)

    def _conditions(
        self, model: TextToImage, attack: Attack, prompt: Tensor, output: ProtectiveOutput | None
    ) -> tuple[Condition, Condition]:
        """(c_V, c') for these prompts."""
        subject, texts = attack.subject, [self.prompts[i] for i in prompt.tolist()]
        c = model.condition([subject.prompt(text) for text in texts])
        if output is not None and output.c is not None:
            return c, output.c[prompt]
        return c, self.original.condition([subject.prompt(text, of_class=True) for text in texts])


class Notice(Divert):
    """`divert` with a protective output, for the protected subjects alone."""

    settings_type: ClassVar[type[DivertSettings]] = NoticeSettings
