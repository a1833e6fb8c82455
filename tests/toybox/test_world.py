"""The procedural world: the same numbers give the same pictures, and the words fit them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from unlikeness.toybox.recipes.renders import RESERVED, captioned, named_subjects
from unlikeness.toybox.world import (
    CLASS_NOUNS,
    CONTEXTS,
    SIZE,
    describe,
    sample_identity,
    sample_picture,
    sample_scene,
)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_world_is_large_enough_to_personalize_in() -> None:
    assert len(CLASS_NOUNS) >= 6
    assert "person" in CLASS_NOUNS
    assert len(CONTEXTS) >= 8


def test_the_same_seed_draws_the_same_picture_and_words() -> None:
    for i in range(12):
        (one, words), (again, same_words) = sample_picture(rng(i)), sample_picture(rng(i))
        assert one == again
        assert words == same_words
        assert np.array_equal(one.render(), again.render())


@pytest.mark.parametrize(("noun", "context"), product(CLASS_NOUNS, CONTEXTS))
def test_every_class_renders_in_every_context(noun: str, context: str) -> None:
    draw = rng(CLASS_NOUNS.index(noun), list(CONTEXTS).index(context))
    scene = sample_scene(draw, sample_identity(draw, noun), context)
    picture = scene.render()
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # a drawing, not a flat field
    assert scene.context == context


def test_a_larger_render_is_the_same_picture() -> None:
    scene, _ = sample_picture(rng(3))
    small, large = scene.render(SIZE).astype(float), scene.render(2 * SIZE).astype(float)
    halved = large.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
    assert np.abs(halved - small).mean() < 6


@pytest.mark.parametrize("noun", CLASS_NOUNS)
def test_two_members_of_a_class_differ(noun: str) -> None:
    draw = rng(5)
    one, other = sample_identity(draw, noun), sample_identity(draw, noun)
    assert one != other
    same_view = [sample_scene(rng(6), who, "in a room") for who in (one, other)]
    difference = np.abs(same_view[0].render().astype(float) - same_view[1].render())
    assert difference.mean() > 5
    assert sample_identity(rng(8), noun) == sample_identity(rng(8), noun)


def test_two_views_of_one_individual_show_the_same_individual_differently() -> None:
    draw = rng(9)
    who = sample_identity(draw, "cat")
    one, other = sample_scene(draw, who), sample_scene(draw, who)
    assert one.who == other.who == who
    assert not np.array_equal(one.render(), other.render())


def test_captions_name_the_class_and_mostly_the_context() -> None:
    with_context = 0
    for i in range(200):
        scene, words = sample_picture(rng(10, i))
        assert scene.who.class_noun in words
        mentioned = [context for context in CONTEXTS if words.endswith(context)]
        assert mentioned in ([], [scene.context])
        with_context += bool(mentioned)
    assert 140 <= with_context <= 180


def test_a_name_stands_where_an_identifier_would() -> None:
    scene, _ = sample_picture(rng(11))
    for i in range(20):
        assert f"zorp {scene.who.class_noun}" in describe(rng(12, i), scene, "zorp")


def test_unknown_class_noun_is_refused() -> None:
    with pytest.raises(ValueError, match="unicorn"):
        sample_identity(rng(0), "unicorn")


def test_training_captions_never_use_an_attackers_identifier() -> None:
    names = [name for name, _ in named_subjects()]
    assert len(set(names)) == len(names)
    assert not RESERVED & set(names)
    assert "sks" in RESERVED
    for i in range(100):
        assert not RESERVED & set(captioned(0, i)[1].split())
