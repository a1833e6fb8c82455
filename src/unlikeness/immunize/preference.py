"""APDM's preference between generic pictures x⁺ and the subject's x⁻ (arXiv 2511.01307, Eq. 14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.immunize.batch import Batch, Part, noised
from unlikeness.immunize.data import pick

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack

__all__ = ["preference", "preference_loss", "preference_parts"]


def preference_parts(
    model: TextToImage, attack: Attack, count: int, generator: torch.Generator, *, paired: bool
) -> dict[str, Part]:
    """ "generic" and "subject" (count each) under c_V, which the original predicts too.

    They share t and ε pair by pair. paired: each picture of the subject meets its own generic one.
    """
    target, pictures = attack.target, attack.target.data.count
    which = torch.randint(pictures, (count,), generator=generator)
    partner = which if paired else torch.randint(pictures, (count,), generator=generator)
    both = torch.cat(
        [pick(target.generic, partner, generator), pick(target.data.subject, which, generator)]
    )
    c_V = attack.read(model)[0]
    part = noised(model.schedule, both, c_V, generator, copies=2, reference_c=attack.c_V)
    return {"generic": part[:count], "subject": part[count:]}


def preference_loss(f: Mapping[str, Tensor], batch: Batch, beta: float) -> Tensor:
    """L_DPO of these parts."""
    parts = [batch["generic"], batch["subject"]]
    reference, target = (torch.cat([getattr(p, name) for p in parts]) for name in ("reference", "target"))
    return preference(torch.cat([f["generic"], f["subject"]]), reference, target, beta)


def preference(f: Tensor, reference: Tensor, target: Tensor, beta: float) -> Tensor:
    """−log σ(−β (r⁺ − r⁻)), r± = (f_θ − target)² − (f_φ − target)², all under c_V.

    The logarithm is taken element by element and the mean after it, as in the released code; β = 1 is then
    the published setting.

    f, reference, target: [2n, ...], n generic pictures first, then n pictures of the subject, pair by pair at
    the same t and ε. reference: predictions of the original model.
    """
    r = (f - target).square() - (reference - target).square()
    better, worse = r.chunk(2)
    return -F.logsigmoid(-beta * (better - worse)).mean()
