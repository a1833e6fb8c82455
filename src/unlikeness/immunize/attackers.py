"""Whom the model is trained against: simulated attackers, drawn from a mixture.

APDM follows one attacker: full fine-tuning of the U-Net under the subject's own prompt. An attacker is free
to choose, so ours may differ in identifier, prompt, learning rate and in what they train.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch

from unlikeness.errors import UsageError
from unlikeness.immunize.data import Kept
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.immunize.words import IN_PLACES, parts, words
from unlikeness.subjects import Subject

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage

__all__ = ["IN_PLACES", "Attack", "Mixture", "check_prompts", "parts", "words"]

T = TypeVar("T")


@dataclass(frozen=True)
class Attack:
    """One simulated attacker of one subject.

    subject: the protected one under the attacker's identifier. prompt: the one it trains with; class_prompt:
    that of its class pictures; c_V, c_class: the original model's conditions for the two, of one prompt each.
    rank: of its updates; 0 trains all weights. text_encoder: it trains the text encoder too.
    """

    kept: Kept
    subject: Subject
    prompt: str
    class_prompt: str
    c_V: Condition  # noqa: N815 - the papers' name
    c_class: Condition
    learning_rate: float
    rank: int
    text_encoder: bool = False

    def read(self, model: TextToImage, *, grad: bool = False) -> tuple[Condition, Condition]:
        """(c_V, c_class) of one prompt each, as the model under attack reads the two now. grad: with the
        graph that trains its text encoder, where it is trained."""
        if not self.text_encoder:
            return self.c_V, self.c_class
        c = model.condition([self.prompt, self.class_prompt], grad=grad)
        return c[:1], c[1:]


class Mixture:
    """The attackers that the settings allow, of `model` as it is before any attack. UsageError for settings
    that cannot be read."""

    def __init__(self, model: TextToImage, kept: Sequence[Kept], settings: ImmunizeSettings) -> None:
        self.model, self.kept, self.settings = model, list(kept), settings
        self.identifiers = words(settings.identifiers)
        self.templates = parts(settings.templates)
        self.rates = _numbers("rates", settings.rates)
        self.ranks = [int(rank) for rank in _numbers("ranks", settings.ranks)] if settings.ranks else [0]
        if not self.templates or not self.rates or not self.ranks:
            raise UsageError("templates, rates and ranks must each name at least one, if they are given")
        if min(self.rates) <= 0:
            raise UsageError(f"rates ({settings.rates}) must be above 0")
        if settings.ranks and min(self.ranks) < 1:
            raise UsageError(f"ranks ({settings.ranks}) must be 1 or more")
        check_prompts(model, kept, settings.identifiers, self.templates)

    def draw(self, kept: Kept, generator: torch.Generator) -> Attack:
        """An attacker of this subject. The draws are made in the same order whatever there is to choose; that
        of the text encoder, the last, is left out where none is trained."""
        subject, s = kept.subject, self.settings
        identifier = _one([subject.identifier, *self.identifiers], generator)
        template = _one(self.templates, generator)
        rate = _one(self.rates, generator) * s.attack_learning_rate
        rank = _one(self.ranks, generator)
        if float(torch.rand((), generator=generator)) >= s.low_rank:
            rank = 0
        reads = bool(s.text_encoder) and float(torch.rand((), generator=generator)) < s.text_encoder
        named = replace(subject, identifier=identifier)
        prompt, of_class = named.prompt(template), named.prompt(template, of_class=True)
        c = self.model.condition([prompt, of_class])
        return Attack(
            kept, named, prompt, of_class, c[:1], c[1:], rate * (s.low_rank_rate if rank else 1.0), rank,
            text_encoder=reads and not rank,
        )  # fmt: skip


def check_prompts(
    model: TextToImage, kept: Sequence[Kept], identifiers: str, templates: Sequence[str]
) -> None:
    """UsageError if a template has no place for a name, or with one of the identifiers is too long a prompt
    for the model. identifiers: beside the subjects' own, as a setting holds them."""
    for one in kept:
        for identifier in (one.subject.identifier, *words(identifiers)):
            for template in templates:
                prompt = replace(one.subject, identifier=identifier).prompt(template)
                if reason := model.conditioner.too_long(prompt):
                    raise UsageError(reason)


def _one(choices: Sequence[T], generator: torch.Generator) -> T:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def _numbers(name: str, text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"{name} ({text}) must be numbers separated by commas") from error
    if not all(map(math.isfinite, found)):
        raise UsageError(f"{name} ({text}) must be numbers separated by commas")
    return found
