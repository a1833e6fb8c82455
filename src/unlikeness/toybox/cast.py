"""Subjects to try things on: members of the world's classes that no training has seen.

Every generator here begins with a number of its own (`recipes.renders` has those of trainings), so the
subjects of tests and benchmarks are disjoint from those of every recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unlikeness.subjects import Subject
from unlikeness.toybox.world import (
    CLASS_NOUNS,
    CONTEXTS,
    Identity,
    sample_identity,
    sample_scene,
    to_images,
)

_MEMBER, _TRAINING, _HELD_OUT, _IN_CONTEXT, _CLASS = 7_000_001, 7_000_002, 7_000_003, 7_000_004, 7_000_005


@dataclass(frozen=True)
class Member:
    """One unseen individual. `seed` and the class noun determine it and all its pictures."""

    seed: int
    who: Identity

    @property
    def class_noun(self) -> str:
        return self.who.class_noun

    def subject(self, pictures: int = 5, identifier: str = "sks") -> Subject:
        """What an attacker has: `pictures` views, in different contexts as long as there are enough."""
        rng = np.random.default_rng((_TRAINING, self.seed))
        contexts = _shuffled(rng)
        views = [sample_scene(rng, self.who, contexts[i % len(contexts)]).render() for i in range(pictures)]
        return Subject(to_images(np.stack(views)), self.class_noun, identifier)

    def contexts(self) -> list[str]:
        """All contexts in the order in which `subject` uses them: with 5 pictures, the last three are new."""
        return _shuffled(np.random.default_rng((_TRAINING, self.seed)))

    def held_out(self, count: int = 10) -> Tensor:
        """Other views, [count, 3, 64, 64], to compare generations with."""
        return self._views(_HELD_OUT, None, count)

    def in_context(self, context: str, count: int) -> Tensor:
        """Other views in one context, [count, 3, 64, 64]."""
        return self._views(_IN_CONTEXT, context, count)

    def _views(self, purpose: int, context: str | None, count: int) -> Tensor:
        rng = np.random.default_rng((purpose, self.seed))
        return to_images(np.stack([sample_scene(rng, self.who, context).render() for _ in range(count)]))


def _shuffled(rng: np.random.Generator) -> list[str]:
    return [str(c) for c in rng.permutation(list(CONTEXTS))]


def member(seed: int, class_noun: str) -> Member:
    """The unseen individual of this seed and class."""
    who = sample_identity(np.random.default_rng((_MEMBER, seed, CLASS_NOUNS.index(class_noun))), class_noun)
    return Member(seed, who)


def unseen(count: int, seed: int = 0) -> list[Member]:
    """`count` individuals, the class nouns in turn."""
    return [member(seed + i, CLASS_NOUNS[i % len(CLASS_NOUNS)]) for i in range(count)]


def class_pictures(class_noun: str, count: int, seed: int = 0) -> Tensor:
    """Renders of `count` different members of a class, [count, 3, 64, 64]."""
    rng = np.random.default_rng((_CLASS, seed, CLASS_NOUNS.index(class_noun)))
    views = [sample_scene(rng, sample_identity(rng, class_noun)).render() for _ in range(count)]
    return to_images(np.stack(views))
