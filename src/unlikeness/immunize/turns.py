"""Whose attack is simulated when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from unlikeness.seeds import step_generator

if TYPE_CHECKING:
    from unlikeness.immunize.settings import ImmunizeSettings

__all__ = ["Turn", "attacks", "turn"]


@dataclass(frozen=True)
class Turn:
    """subject: index of a protected one. bystander: somebody else of that one's class is attacked."""

    subject: int
    bystander: bool


def turn(settings: ImmunizeSettings, attack: int, subjects: int) -> Turn:
    """That of simulated attack number `attack`, from 0 on.

    Every protected subject is attacked once in each round, in an order drawn for the round; from the share
    `settings.bystanders_from` of the run on every `settings.bystanders`-th attack is a bystander's, and part
    of no round.
    """
    every = settings.bystanders
    after = attack - round(settings.bystanders_from * every_attack(settings))
    bystander = bool(every) and after >= 0 and after % every == every - 1
    before = max(after, 0) // every if every else 0
    round_, place = divmod(attack - before, subjects)
    order = torch.randperm(subjects, generator=step_generator(settings.seed, -1 - round_))
    return Turn(int(order[place]), bystander)


def every_attack(settings: ImmunizeSettings) -> int:
    """How many simulated attacks a whole run has, bystanders' among them."""
    return -(-settings.outer_steps // settings.episode)


def attacks(settings: ImmunizeSettings, subjects: int) -> list[int]:
    """How many simulated attacks a whole run has on each protected subject."""
    met = [0] * subjects
    for attack in range(every_attack(settings)):
        whose = turn(settings, attack, subjects)
        met[whose.subject] += not whose.bystander
    return met
