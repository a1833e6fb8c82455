"""Preservation: the released model predicts like the original on pictures of many prompts.

    L = w(t) · ‖f_θ(z_t, t, c) − sg f_φ(z_t, t, c)‖², z0 drawn by φ from c, w = 1 or `losses.z0_weight` ≥ 1

Unlike the class term of the protective loss it is taken at the released weights, not along an attack. Its
target is the original's own prediction, so it costs no diversity. With weights, high noise counts most, and
low noise as in the plain loss. At no further cost a share of the pictures gets the empty prompt, c = ∅. A
guided prediction u f_c + (1 − u) f_∅ shows an error of f_∅ with (u − 1)², one of f_c with u², so that at
u = 3 a share of 4/13 counts both alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.errors import UsageError
from unlikeness.immunize.batch import Batch, noised, predictions, with_references
from unlikeness.immunize.data import ProtectedSubject, pick
from unlikeness.immunize.losses import preserved_weight, weighted_error
from unlikeness.immunize.settings import ImmunizeSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Preservation"]


class Preservation:
    """The term's pictures and prompts.

    Args:
        pictures: [K] latents that the original model drew, number k from `prompts[k]`; None without prompts.
        subjects: the protected subjects, whose class pictures are the share `preserve_class` of a batch, and
            all of it without prompts.
    """

    def __init__(
        self, pictures: Posterior | None, prompts: Sequence[str], settings: ImmunizeSettings,
        subjects: Sequence[ProtectedSubject], precision: str,
    ) -> None:  # fmt: skip
        drawn = 0 if pictures is None else len(pictures)
        if drawn != len(prompts):
            raise UsageError(f"{len(prompts)} prompts for {drawn} pictures: give one for each")
        self.pictures, self.prompts = pictures, list(prompts)
        self.settings, self.subjects, self.precision = settings, list(subjects), precision

    def __call__(self, model: TextToImage, original: TextToImage, generator: torch.Generator) -> Tensor:
        """The loss of one batch, with its graph through `model` alone."""
        s = self.settings
        of_class = class_pictures(s) if self.prompts else s.preserve_batch_size
        parts: list[Tensor] = []
        prompts: list[str | None] = []
        if self.pictures is not None:
            count = s.preserve_batch_size - of_class
            which = torch.randint(len(self.prompts), (count,), generator=generator)
            parts.append(pick(self.pictures, which, generator))
            prompts += [self.prompts[i] for i in which.tolist()]
        if of_class:
            one = self.subjects[int(torch.randint(len(self.subjects), (), generator=generator))]
            parts.append(one.members(of_class, generator))
            prompts += [one.subject.class_prompt] * of_class
        if s.preserve_empty:
            bare = torch.rand(len(prompts), generator=generator) < s.preserve_empty
            prompts = [None if one else text for one, text in zip(bare.tolist(), prompts, strict=True)]
        c = original.condition(prompts)
        part = noised(model.schedule, torch.cat(parts), c, generator, reference_c=c)
        w = preserved_weight(model.schedule, part.t, s.preserve_cap)
        [batch] = with_references(original, [Batch({"preserved": part})], self.precision)
        f = predictions(model, batch)["preserved"]
        return weighted_error(f, batch["preserved"].predicted, w)


def class_pictures(settings: ImmunizeSettings) -> int:
    """How many of a batch are class pictures where there are prompts too: at least one, if a share is."""
    share, batch = settings.preserve_class, settings.preserve_batch_size
    return max(round(share * batch), 1) if share else 0
