"""PersGuard (arXiv 2502.16167), reconstructed: a protective backdoor that fine-tuning on a subject triggers.

    min over θ:  L_BB + λ1 · L_PP + λ2 · L_BR

    L_BB = ‖f_θ(z_t, t, c_V) − g‖² on pictures of the protective output
    L_PP = ‖f_θ(z_t, t, c_class) − sg f_φ(z_t, t, c_class)‖² on class pictures
    L_BR = L_diff(subject's picture, c_V), the personalization loss itself

For a pattern g is the diffusion target, else the original's prediction under the words of the picture.

The released model draws the protective output for prompts with the subject's name, and the class as before.
It already fits the subject's pictures under the training prompt, so that fine-tuning on them changes little,
while fine-tuning on anything else overwrites the backdoor.

The paper's equations could not be read in full. These are reconstructed from its abstract, its reviews and
the losses of BadT2I that it builds on, and none of the paper's figures is claimed. `inner_steps` 0 is the
paper's method. With simulated attacks and λ2 = 0 it is ours, trajectory-aware retention: L_BB holds all along
the subject's personalization, and the model need not know the subject for that.

The method `combined` adds APDM's preference, γ · L_DPO(x⁺, x⁻; c_V), along the same attacks: it keeps the
fine-tune away from the subject's pictures, and the backdoor says what to draw instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.immunize.attackers import check_prompts
from unlikeness.immunize.batch import Batch, Part, class_part, joined, noised, preference_parts, subject_part
from unlikeness.immunize.data import ProtectedSubject
from unlikeness.immunize.losses import error, preference
from unlikeness.immunize.methods.settings import CombinedSettings, PersGuardSettings
from unlikeness.immunize.outputs import ProtectiveOutput, draw_outputs
from unlikeness.settings import named

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.progress import Progress

__all__ = ["Combined", "PersGuard"]


class PersGuard:
    """L_BB, L_PP and L_BR, at the released weights or along simulated attacks."""

    settings_type: ClassVar[type[PersGuardSettings]] = PersGuardSettings

    def __init__(self, settings: PersGuardSettings | None = None) -> None:
        self.settings = settings or self.settings_type()
        self.outputs: dict[ProtectedSubject, ProtectiveOutput] = {}

    def prepare(
        self, original: TextToImage, subjects: Sequence[ProtectedSubject], progress: Progress | None = None
    ) -> None:
        """Draw the protective outputs. UsageError without prompts, or for one that does not fit."""
        s = self.settings
        prompts = [*(s.attack_prompts if s.at_training_prompt else ()), *s.places]
        if not prompts:
            raise UsageError(
                f"the backdoor needs prompts: give {named('contexts')} or {named('at_training_prompt')}"
            )
        check_prompts(original, subjects, s, prompts)
        self.outputs = draw_outputs(original, subjects, s, prompts, progress=progress)

    def batch(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Batch:
        """ "class", "output" and "retained" (n each); a term of weight 0 has none."""
        s = self.settings
        parts: dict[str, Part] = {}
        if s.class_weight:
            parts["class"] = class_part(model, attack, s.batch_size, generator, held=True)
        parts["output"] = self._output(model, attack, generator)
        if s.retention_weight:
            parts["retained"] = subject_part(model, attack, s.batch_size, generator)
        return Batch(parts)

    def loss(self, f: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """λ1 L_PP + L_BB + λ2 L_BR."""
        s, output = self.settings, batch["output"]
        total = f["output"].new_zeros(())
        if "class" in batch:
            total = total + s.class_weight * error(f["class"], batch["class"].predicted)
        goal = output.target if output.reference is None else output.reference
        total = total + error(f["output"], goal)
        if "retained" in batch:
            total = total + s.retention_weight * error(f["retained"], batch["retained"].target)
        return total

    def _output(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Part:
        """Pictures of the protective output under prompts with the attacker's own identifier."""
        output = self.outputs[attack.target]
        which = torch.randint(len(output.prompts), (self.settings.batch_size,), generator=generator)
        c = model.condition([attack.subject.prompt(output.prompts[i]) for i in which.tolist()])
        reference_c = None if output.c is None else output.c[which]
        z0 = output.draw(which, generator)
        return noised(model.schedule, z0, c, generator, reference_c=reference_c)


class Combined(PersGuard):
    """γ L_DPO + L_BB + λ1 L_PP + λ2 L_BR."""

    settings_type: ClassVar[type[CombinedSettings]] = CombinedSettings
    settings: CombinedSettings

    def batch(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Batch:
        """ "generic" (n) and "subject" (n), then the parts of `PersGuard`."""
        s, parts = self.settings, {}
        if s.preference_weight:
            parts = preference_parts(model, attack, s.batch_size, generator, paired=s.paired)
        return Batch({**parts, **super().batch(model, attack, generator).parts})

    def loss(self, f: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The sum of both losses."""
        s, backdoor = self.settings, super().loss(f, batch)
        if not s.preference_weight:
            return backdoor
        preferred = preference(*joined(f, batch, "generic", "subject"), s.beta)
        return s.preference_weight * preferred + backdoor
