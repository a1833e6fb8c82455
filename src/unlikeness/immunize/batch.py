"""The batch of one protective gradient: noised latents in named parts, predicted in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.autoencoders import randn
from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.loss import at_once

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import Schedule
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.outputs import Watermark

__all__ = [
    "Batch", "Part", "class_part", "joined", "noised", "predictions", "preference_parts", "subject_part",
    "wide", "with_references",
]  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Noised latents z_t [M, C, h, w] at t (long [M]) under a condition c, with their diffusion target.

    reference_c: the condition under which the original model predicts them too, if it does; reference: its
    predictions, filled in by `with_references`. contrast_c, contrast: a second condition and its predictions.
    """

    z_t: Tensor
    t: Tensor
    c: Condition
    target: Tensor
    reference_c: Condition | None = None
    contrast_c: Condition | None = None
    reference: Tensor | None = None
    contrast: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z_t)

    def __getitem__(self, which: slice) -> Part:
        """Some rows of it."""
        return replace(self, **{name: v[which] for name, v in vars(self).items() if v is not None})

    @property
    def predicted(self) -> Tensor:
        """The original model's predictions [M, C, h, w]."""
        assert self.reference is not None, "with_references() comes first"
        return self.reference

    @property
    def shift(self) -> Tensor:
        """The difference of the original's predictions under the two conditions (the guidance direction)."""
        assert self.contrast is not None, "with_references() comes first"
        return self.predicted - self.contrast


@dataclass(frozen=True)
class Batch:
    """Parts by name, in the order in which the network gets them. watermark: of the attacked subject's
    protective output."""

    parts: Mapping[str, Part]
    watermark: Watermark | None = None

    def __getitem__(self, name: str) -> Part:
        return self.parts[name]

    def __contains__(self, name: str) -> bool:
        return name in self.parts


def noised(
    schedule: Schedule,
    z0: Tensor,
    c: Condition,
    generator: torch.Generator,
    *,
    copies: int = 1,
    least: int = 0,
    reference_c: Condition | None = None,
) -> Part:
    """z0 [M, C, h, w] under c (of one prompt or M) at drawn t and ε.

    copies: the rows fall into so many groups, one after the other, that share t and ε. least: the lowest
    noise level. reference_c: likewise, the original's condition; None: it predicts nothing.
    """
    count = len(z0) // copies
    t = torch.randint(least, schedule.steps, (count,), generator=generator).to(z0.device).repeat(copies)
    eps = randn((count, *z0.shape[1:]), z0, generator).repeat(copies, 1, 1, 1)
    every = c.expand(len(z0))
    asked = None if reference_c is None else reference_c.expand(len(z0))
    return Part(schedule.add_noise(z0, eps, t), t, every, schedule.target(z0, eps, t), asked)


def subject_part(model: TextToImage, attack: Attack, count: int, generator: torch.Generator) -> Part:
    """Pictures of the attacked subject under c_V."""
    z0 = attack.target.own(count, generator)
    return noised(model.schedule, z0, attack.read(model)[0], generator)


def class_part(
    model: TextToImage, attack: Attack, count: int, generator: torch.Generator, *, held: bool = False
) -> Part:
    """Class pictures under c_class; held: the original predicts them too."""
    z0, reference_c = attack.target.members(count, generator), attack.c_class if held else None
    return noised(model.schedule, z0, attack.read(model)[1], generator, reference_c=reference_c)


def preference_parts(
    model: TextToImage, attack: Attack, count: int, generator: torch.Generator, *, paired: bool
) -> dict[str, Part]:
    """ "generic" and "subject" (count each) under c_V, with the same t and ε; the original predicts both."""
    z0, c_V = attack.target.pairs(count, generator, paired=paired), attack.read(model)[0]
    part = noised(model.schedule, z0, c_V, generator, copies=2, reference_c=attack.c_V)
    return {"generic": part[:count], "subject": part[count:]}


def joined(f: Mapping[str, Tensor], batch: Batch, *names: str) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, the original's predictions and targets of several parts, one after the other."""
    parts = [batch[name] for name in names]
    reference, target = [part.predicted for part in parts], [part.target for part in parts]
    return torch.cat([f[name] for name in names]), torch.cat(reference), torch.cat(target)


def wide(f: Tensor) -> Tensor:
    """f in float32 at least, in which losses are computed."""
    return f.to(torch.promote_types(f.dtype, torch.float32))


def predictions(model: TextToImage, batch: Batch) -> dict[str, Tensor]:
    """The model's predictions by part, from one call, in float32 at least."""
    parts = list(batch.parts.values())
    z_t, t = (torch.cat([getattr(part, name) for part in parts]) for name in ("z_t", "t"))
    f = wide(model.predict(z_t, t, Condition.cat([part.c for part in parts])))
    return dict(zip(batch.parts, torch.split(f, [len(part) for part in parts]), strict=True))


@torch.no_grad()
def with_references(original: TextToImage, batches: Sequence[Batch], precision: str) -> list[Batch]:
    """The same batches with the original model's predictions, computed together in as few calls as memory
    allows."""
    asked = [
        (part, c)
        for batch in batches
        for kind in ("reference_c", "contrast_c")
        for part in batch.parts.values()
        if (c := getattr(part, kind)) is not None
    ]
    if not asked:
        return list(batches)
    z_t, t = torch.cat([part.z_t for part, _ in asked]), torch.cat([part.t for part, _ in asked])
    c, most = Condition.cat([c for _, c in asked]), at_once(z_t.shape[1:])
    found = []
    with original.autocast(precision):
        for first in range(0, len(z_t), most):
            rows = slice(first, first + most)
            found.append(wide(original.predict(z_t[rows], t[rows], c[rows])))
    answers = iter(torch.split(torch.cat(found), [len(part) for part, _ in asked]))
    filled = []
    for batch in batches:
        parts = dict(batch.parts)
        for kind in ("reference", "contrast"):
            for name, part in parts.items():
                if getattr(part, f"{kind}_c") is not None:
                    answer: dict[str, Any] = {kind: next(answers)}
                    parts[name] = replace(part, **answer)
        filled.append(replace(batch, parts=parts))
    return filled
