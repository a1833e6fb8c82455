"""One protective gradient's batch: all that the U-Net is asked, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.autoencoders import randn
from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.loss import at_once

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import Schedule
    from unlikeness.immunize.outputs import Mark

__all__ = ["Rows", "ask", "noised", "wide"]

@dataclass(frozen=True)
class Rows:
    """Noised latents under their prompts.

    z_t, target: [M, C, h, w]; t: long [M]; c: of M prompts.
    reference: f_φ of the first R rows, [R, C, h, w]; before `ask` None.
    reference_c: of R prompts, the condition under which φ is asked; R may be 0.
    mark: a pattern that the answers are to bear.
    contrast_c: of A prompts, under which φ is asked about the first A rows besides; contrast: its answers.
    """

    z_t: Tensor
    t: Tensor
    c: Condition
    target: Tensor
    reference_c: Condition
    reference: Tensor | None = None
    mark: Mark | None = None
    contrast_c: Condition | None = None
    contrast: Tensor | None = None

    @property
    def referenced(self) -> Tensor:
        """f_φ [R, C, h, w] in float32 at least."""
        assert self.reference is not None, "ask() comes first"
        return self.reference

    @property
    def shift(self) -> Tensor:
        """f_φ of the first A rows less their contrast, [A, C, h, w]: what the words are worth there."""
        assert self.contrast is not None, "ask() comes first"
        return self.referenced[: len(self.contrast)] - self.contrast

    @property
    def asked(self) -> int:
        """How many answers φ is to give."""
        return len(self.reference_c) + (0 if self.contrast_c is None else len(self.contrast_c))

    @staticmethod
    def cat(parts: Sequence[Rows]) -> Rows:
        """One after the other, none of them asked about yet; those that φ will be asked about come first."""
        return Rows(
            torch.cat([p.z_t for p in parts]),
            torch.cat([p.t for p in parts]),
            Condition.cat([p.c for p in parts]),
            torch.cat([p.target for p in parts]),
            Condition.cat([p.reference_c for p in parts]),
        )


def noised(
    schedule: Schedule,
    z0: Tensor,
    c: Condition,
    generator: torch.Generator,
    *,
    copies: int = 1,
    reference_c: Condition | None = None,
) -> Rows:
    """z0 [M, C, h, w] under c (of one prompt, or M) at drawn t and ε.

    copies: the rows fall into so many groups, one after the other, that share t and ε row by row.
    reference_c: the condition for φ (of one prompt, or R) on all rows; None: φ is not asked.
    """
    count = len(z0) // copies
    t = torch.randint(schedule.steps, (count,), generator=generator).to(z0.device).repeat(copies)
    eps = randn((count, *z0.shape[1:]), z0, generator).repeat(copies, 1, 1, 1)
    every = c.expand(len(z0))
    asked = every[:0] if reference_c is None else reference_c.expand(len(z0))
    return Rows(schedule.add_noise(z0, eps, t), t, every, schedule.target(z0, eps, t), asked)


def wide(f: Tensor) -> Tensor:
    """f in float32 at least, in which losses are formed."""
    return f.to(torch.promote_types(f.dtype, torch.float32))


@torch.no_grad()
def ask(original: TextToImage, many: Sequence[Rows], precision: str) -> list[Rows]:
    """The same rows with f_φ: of all of them together, in as few calls as memory allows."""
    asked = [(rows, c) for rows in many for c in (rows.reference_c, rows.contrast_c) if c is not None]
    counts = [len(c) for _, c in asked]
    if not sum(counts):
        return [replace(rows, reference=rows.z_t[:0]) for rows in many]
    z_t = torch.cat([rows.z_t[: len(c)] for rows, c in asked])
    t = torch.cat([rows.t[: len(c)] for rows, c in asked])
    c = Condition.cat([c for _, c in asked])
    answers, most = [], at_once(z_t.shape[1:])
    with original.autocast(precision):
        for first in range(0, len(z_t), most):
            part = slice(first, first + most)
            answers.append(wide(original.predict(z_t[part], t[part], c[part])))
    split = iter(torch.split(torch.cat(answers), counts))
    return [
        replace(rows, reference=next(split), contrast=None if rows.contrast_c is None else next(split))
        for rows in many
    ]
