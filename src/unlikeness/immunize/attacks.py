"""Whom the model is trained against: simulated attackers, drawn from a mixture.

APDM follows one attacker: full fine-tuning of the U-Net under the subject's own prompt. An attacker is free
to choose, so ours may differ in identifier, prompt, learning rate and in what they train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.immunize.material import Kept
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.prompts import too_long
from unlikeness.subjects import Subject

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["IN_PLACES", "Attack", "Mixture", "parts"]

_PLACES = ("in the snow", "on the beach", "in the forest", "in the city", "at night", "on a table")

IN_PLACES = "|".join(f"a photo of {{}} {place}" for place in _PLACES)
"""Templates of prompts for the subject elsewhere than in the attacker's pictures, as settings hold them."""

T = TypeVar("T")


@dataclass(frozen=True)
class Attack:
    """One simulated attacker of one subject.

    subject: the protected one under the attacker's identifier. prompt: the one it trains with; c_V, c_class:
    [1, L, D] of it and of its class prompt. rank: of its updates; 0 trains all weights.
    """

    kept: Kept
    subject: Subject
    prompt: str
    c_V: Tensor  # noqa: N815 - the papers' name
    c_class: Tensor
    learning_rate: float
    rank: int


class Mixture:
    """The attackers that the settings allow. UsageError for settings that cannot be read."""

    def __init__(self, model: TextToImage, kept: Sequence[Kept], settings: ImmunizeSettings) -> None:
        self.model, self.kept, self.settings = model, list(kept), settings
        self.identifiers = [word.strip() for word in settings.identifiers.split(",") if word.strip()]
        self.templates = parts(settings.templates)
        self.rates = _numbers("rates", settings.rates)
        self.ranks = [round(rank) for rank in _numbers("ranks", settings.ranks)] if settings.ranks else [0]
        if not self.templates or not self.rates or min(self.rates) <= 0:
            raise UsageError("templates and rates must each name at least one, and every rate be above 0")
        for one in self.kept:
            for identifier in (one.subject.identifier, *self.identifiers):
                for template in self.templates:
                    prompt = replace(one.subject, identifier=identifier).prompt(template)
                    if reason := too_long(model.tokenizer, prompt):
                        raise UsageError(reason)

    def draw(self, kept: Kept, generator: torch.Generator) -> Attack:
        """An attacker of this subject. The draws are made in the same order whatever there is to choose."""
        subject, s = kept.subject, self.settings
        identifier = _one([subject.identifier, *self.identifiers], generator)
        template = _one(self.templates, generator)
        rate = _one(self.rates, generator) * s.attack_learning_rate
        rank = _one(self.ranks, generator)
        if float(torch.rand((), generator=generator)) >= s.low_rank:
            rank = 0
        named = replace(subject, identifier=identifier)
        prompt, of_class = named.prompt(template), named.prompt(template, of_class=True)
        c = self.model.embed([prompt, of_class])
        return Attack(kept, named, prompt, c[:1], c[1:], rate * (s.low_rank_rate if rank else 1.0), rank)


def parts(text: str) -> list[str]:
    """The templates of a setting that holds several, separated by |."""
    return [part.strip() for part in text.split("|") if part.strip()]


def _one(choices: Sequence[T], generator: torch.Generator) -> T:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"{name} ({text}) must be numbers separated by commas") from error
