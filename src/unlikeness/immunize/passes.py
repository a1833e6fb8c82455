"""How often a run asks U-Nets, counted beforehand from its settings, exactly.

A call is one forward pass of a batch; what it costs goes with the pictures in it. What has a gradient is
followed by one backward pass for each forward one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unlikeness.diffusion.loss import at_once
from unlikeness.immunize.rehearsal import Drawing, rehearse
from unlikeness.immunize.turns import Turn, turn
from unlikeness.immunize.unprotected import Bystanders

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.registry import Defence
    from unlikeness.immunize.settings import ImmunizeSettings
    from unlikeness.subjects import Subject

__all__ = ["Count", "Passes", "count"]


@dataclass(frozen=True)
class Passes:
    """Calls of a U-Net, and the pictures in all of them together."""

    calls: int = 0
    pictures: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.calls + other.calls, self.pictures + other.pictures)

    def __mul__(self, times: int) -> Passes:
        return Passes(self.calls * times, self.pictures * times)

    def __str__(self) -> str:
        return f"{self.pictures:,} pictures in {self.calls:,} calls"


@dataclass(frozen=True)
class Count:
    """A whole run. drawing, original: without a gradient; the others with one, and a backward pass each.

    drawing: of class pictures and whatever else the original draws beforehand. original: φ's answers,
    to which the released model is held. attack: the simulated attackers' own steps. protect, preserve: the
    gradients of the released weights.
    """

    drawing: Passes
    original: Passes
    attack: Passes
    protect: Passes
    preserve: Passes

    @property
    def without_gradient(self) -> Passes:
        return self.drawing + self.original

    @property
    def with_gradient(self) -> Passes:
        return self.attack + self.protect + self.preserve

    def as_record(self) -> dict[str, Any]:
        """JSON-able: forward passes without a gradient, with one, and backward passes."""
        without, with_ = vars(self.without_gradient), vars(self.with_gradient)
        return {"forward": dict(without), "forward_with_gradient": dict(with_), "backward": dict(with_)}


def count(
    model: TextToImage,
    defence: Defence,
    subjects: Sequence[Subject],
    prompts: Sequence[str] = (),
    *,
    original: TextToImage | None = None,
) -> Count:
    """What `immunize(model, subjects, defence, prompts=prompts, original=original)` asks of U-Nets.

    A method's batches are taken to be as large at every step as a subject's first. Gradient checkpointing
    computes most of a forward pass with a gradient once more in its backward pass, which is not counted.
    """
    s = defence.settings
    drawings, batches = rehearse(original or model, defence, subjects, prompts)
    points = max(s.inner_steps, 1)
    attacked = s.attack_batch_size * (2 if s.prior_weight else 1)
    bystanders = Bystanders(original or model, s, "float32")
    asked = protect = preserve = Passes()
    attack_steps = s.attack_steps * s.outer_steps
    for whose, steps in _turns(s, len(batches)):
        rows = batches[whose.subject]
        if whose.bystander:
            asked += _asked(model, bystanders.asked()) * (points * steps)
            protect += Passes(1, bystanders.pictures()) * (points * steps)
        else:
            attack_steps -= s.stride if s.from_start and s.inner_steps else 0
            at_once = 1 if s.text_encoder else points  # see L2P
            asked += _asked(model, rows.asked * at_once) * (steps * points // at_once)
            protect += Passes(1, len(rows.z_t)) * (points * steps)
    if s.preserve_weight:
        asked += _asked(model, s.preserve_rows) * s.outer_steps
        preserve = Passes(1, s.preserve_rows) * s.outer_steps
    return Count(
        drawing=sum(map(_drawn, drawings), Passes()),
        original=asked,
        attack=Passes(1, attacked) * attack_steps,
        protect=protect,
        preserve=preserve,
    )


def _turns(s: ImmunizeSettings, subjects: int) -> list[tuple[Turn, int]]:
    """Whose attacks are simulated, each with the outer steps for which it is followed."""
    firsts = range(0, s.outer_steps, s.episode)
    return [
        (turn(s, first // s.episode, subjects), min(s.episode, s.outer_steps - first)) for first in firsts
    ]


def _asked(model: TextToImage, pictures: int) -> Passes:
    """The original model's answers, as `rows.ask` cuts them into calls."""
    return Passes(-(-pictures // at_once(model.latent_shape)), pictures)


def _drawn(drawing: Drawing) -> Passes:
    batches = -(-drawing.pictures // drawing.batch_size)
    return Passes(batches, drawing.pictures * (2 if drawing.guided else 1)) * drawing.calls_a_batch
