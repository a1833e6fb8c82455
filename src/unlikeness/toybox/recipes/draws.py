"""What each recipe renders. Every stream of random numbers has a number of its own, so that no two meet."""

from __future__ import annotations

from functools import cache

import numpy as np

from unlikeness.toybox.world import (
    CLASS_NOUNS,
    Identity,
    Scene,
    describe,
    sample_identity,
    sample_picture,
    sample_scene,
)

_PICTURE, _NAMED, _NAMES, _CAST, _VIEW = 1, 2, 3, 4, 5

NAMED_SUBJECTS = 400
NAMED_SHARE = 0.25
VIEWS = 8
"""Pictures of each individual of the identity encoder's training."""

RESERVED = frozenset({"sks", "t@t", "xjy", "hta", "xyz", "zwx", "ohw", "kqs"})
"""Identifiers that attackers and tests use: no training caption has them."""


@cache
def named_subjects() -> list[tuple[str, Identity]]:
    """The rare words of the training captions, each bound to one fixed subject of the training world."""
    rng = np.random.default_rng(_NAMES)
    names: dict[str, Identity] = {}
    while len(names) < NAMED_SUBJECTS:
        name = "".join(rng.choice(list("bcdfghjklmnpqrstvwxz@"), 3))
        if name not in RESERVED and name not in names:
            noun = CLASS_NOUNS[len(names) % len(CLASS_NOUNS)]
            names[name] = sample_identity(np.random.default_rng((_NAMED, len(names))), noun)
    return list(names.items())


def captioned(seed: int, index: int) -> tuple[Scene, str]:
    """Any individual in any scene, and a caption; a quarter of the time a named one, by its name."""
    rng = np.random.default_rng((_PICTURE, seed, index))
    if rng.random() >= NAMED_SHARE:
        return sample_picture(rng)
    name, who = named_subjects()[int(rng.integers(NAMED_SUBJECTS))]
    scene = sample_scene(rng, who)
    return scene, describe(rng, scene, name)


def classed(seed: int, index: int) -> tuple[Scene, str]:
    """Any individual in any scene; the label is "class noun|context"."""
    scene, _ = sample_picture(np.random.default_rng((_PICTURE, seed, index)))
    return scene, f"{scene.who.class_noun}|{scene.context}"


def viewed(seed: int, index: int) -> tuple[Scene, str]:
    """`VIEWS` views of one individual after another; the label is "class noun|number of the individual"."""
    number = index // VIEWS
    noun = CLASS_NOUNS[number % len(CLASS_NOUNS)]
    who = sample_identity(np.random.default_rng((_CAST, seed, number)), noun)
    return sample_scene(np.random.default_rng((_VIEW, seed, index)), who), f"{noun}|{number}"
