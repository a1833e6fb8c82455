"""What is to stay as it was: the released model answers like the original on pictures of many prompts.

    L = w(t) · ‖f_θ(z_t, t, c) − sg f_φ(z_t, t, c)‖², z0 drawn by φ from c, w = 1 or `weighting.z0_weight` ≥ 1

Unlike the class term of the protective loss it is taken at the released weights, not along an attack, and
it asks for φ's own answers, so that it costs no diversity. With weights, what is drawn first, at high noise,
counts most, and what is drawn last, detail, as in the plain loss. With guidance the answers are the guided
ones, in which a small change of one of the two shows several times as large. At no further cost a share of
the pictures is asked about without words, c = ∅: a guided answer u f_c + (1 − u) f_∅ shows an error of f_∅
with (u − 1)², one of f_c with u², so that at u = 3 four of thirteen is the share that counts them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.errors import UsageError
from unlikeness.immunize.batch import Rows, ask, noised, wide
from unlikeness.immunize.data import Kept, pick
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.immunize.weighting import preserved_weight, weighted_error
from unlikeness.progress import Progress

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Preserve", "draw_general"]


class Preserve:
    """The term's pictures and prompts.

    Args:
        pictures: [K] latents that the original model drew, that at k from `prompts[k]`; None without prompts.
        settings: how many pictures a step has, of what share the class is, and what a noise level counts.
        kept: the protected subjects, whose class pictures are that share; without prompts they are all.
    """

    def __init__(
        self, pictures: Posterior | None, prompts: Sequence[str], settings: ImmunizeSettings,
        kept: Sequence[Kept], precision: str,
    ) -> None:  # fmt: skip
        drawn = 0 if pictures is None else len(pictures)
        if drawn != len(prompts):
            raise UsageError(f"{len(prompts)} prompts for {drawn} pictures: give one for each")
        self.pictures, self.prompts = pictures, list(prompts)
        self.settings, self.kept, self.precision = settings, list(kept), precision

    def __call__(self, model: TextToImage, original: TextToImage, generator: torch.Generator) -> Tensor:
        """The loss of one batch, with its graph through `model` alone."""
        s = self.settings
        of_class = of_the_class(s) if self.prompts else s.preserve_batch_size
        parts, prompts = [], []
        if self.pictures is not None:
            count = s.preserve_batch_size - of_class
            which = torch.randint(len(self.prompts), (count,), generator=generator)
            parts.append(pick(self.pictures, which, generator))
            prompts += [self.prompts[i] for i in which.tolist()]
        if of_class:
            one = self.kept[int(torch.randint(len(self.kept), (), generator=generator))]
            member = torch.randint(len(one.prior), (of_class,), generator=generator)
            parts.append(pick(one.prior, member, generator))
            prompts += [one.subject.class_prompt] * of_class
        if s.preserve_empty:
            bare = torch.rand(len(prompts), generator=generator) < s.preserve_empty
            prompts = ["" if one else text for one, text in zip(bare.tolist(), prompts, strict=True)]
        z0, c = torch.cat(parts), original.condition(prompts)
        rows = noised(model.schedule, z0, c, generator, reference_c=c)
        w = preserved_weight(model.schedule, rows.t, s.preserve_cap)
        if s.preserve_guidance:
            empty = original.condition([""]).expand(len(c))
            rows = Rows.cat([rows, replace(rows, c=empty, reference_c=empty)])
        [rows] = ask(original, [rows], self.precision)
        f, f_original = wide(model.predict(rows.z_t, rows.t, rows.c)), rows.referenced
        if s.preserve_guidance:
            f, f_original = (guided(answers, s.preserve_guidance) for answers in (f, f_original))
        return weighted_error(f, f_original, w)


def of_the_class(settings: ImmunizeSettings) -> int:
    """How many of a batch are class pictures where there are prompts too: at least one, if a share is."""
    share, batch = settings.preserve_class, settings.preserve_batch_size
    return max(round(share * batch), 1) if share else 0


def guided(answers: Tensor, guidance: float) -> Tensor:
    """f_∅ + guidance · (f_c − f_∅) [B, C, h, w] from the answers [2B, C, h, w] to prompts, then to none
    (Ho & Salimans 2022, Eq. 6)."""
    f, f_empty = answers.chunk(2)
    return f_empty + guidance * (f - f_empty)


def draw_general(
    model: TextToImage, prompts: Sequence[str], *, seed: int, steps: int, progress: Progress | None = None
) -> Posterior:
    """One picture for each prompt, drawn by `model`, encoded: [K]. UsageError for a prompt it cannot read."""
    for prompt in prompts:
        if reason := model.conditioner.too_long(prompt):
            raise UsageError(reason)
    images = model.generate(prompts, seeds=range(seed, seed + len(prompts)), steps=steps, progress=progress)
    return model.encode_all((images * 255).round() / 255)
