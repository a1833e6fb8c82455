"""The subjects of tests and benchmarks: reproducible, and part of no training."""

from __future__ import annotations

import torch

from unlikeness.toybox.cast import class_pictures, member, unseen
from unlikeness.toybox.recipes.renders import VIEWS, named_subjects, viewed
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS


def test_a_member_is_its_seed_and_class() -> None:
    one, again = member(3, "dog"), member(3, "dog")
    assert one == again
    assert one.class_noun == "dog"
    assert torch.equal(one.subject().images, again.subject().images)
    assert torch.equal(one.held_out(4), again.held_out(4))
    assert member(4, "dog").who != one.who
    assert member(3, "cat").who != one.who


def test_training_and_held_out_pictures_differ() -> None:
    who = member(0, "mug")
    training, held_out = who.subject(5).images, who.held_out(6)
    assert training.shape == (5, 3, 64, 64)
    assert held_out.shape == (6, 3, 64, 64)
    assert 0 <= float(training.min()) <= float(training.max()) <= 1
    gaps = torch.cdist(training.flatten(1), held_out.flatten(1))
    assert float(gaps.min()) > 1


def test_the_contexts_of_training_pictures_are_known() -> None:
    order = member(2, "robot").contexts()
    assert sorted(order) == sorted(CONTEXTS)
    longer, shorter = member(2, "robot").subject(8).images, member(2, "robot").subject(5).images
    assert torch.equal(longer[:5], shorter)


def test_more_pictures_begin_with_the_same_ones() -> None:
    assert torch.equal(member(1, "cat").held_out(5)[:3], member(1, "cat").held_out(3))
    assert torch.equal(class_pictures("cat", 5)[:3], class_pictures("cat", 3))


def test_unseen_subjects_take_the_classes_in_turn() -> None:
    cast = unseen(12)
    assert [who.class_noun for who in cast] == list(CLASS_NOUNS) * 2
    assert len({repr(who.who) for who in cast}) == 12


def test_they_are_part_of_no_training() -> None:
    met = {repr(who) for _, who in named_subjects()}
    met |= {repr(viewed(seed, VIEWS * i)[0].who) for seed in range(5) for i in range(60)}
    assert not met & {repr(who.who) for who in [*unseen(60), *unseen(60, seed=1000)]}


def test_class_pictures_show_others() -> None:
    pictures = class_pictures("person", 4, seed=1)
    assert pictures.shape == (4, 3, 64, 64)
    assert not torch.equal(pictures, class_pictures("person", 4, seed=2))
    assert float(torch.cdist(pictures.flatten(1), pictures.flatten(1)).fill_diagonal_(9).min()) > 1
