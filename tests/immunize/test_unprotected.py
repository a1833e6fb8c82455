"""Simulated attacks on unprotected subjects, which must succeed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.immunize.literal import joined
from tests.immunize.test_l2p import FEW

from unlikeness.diffusion import TextToImage
from unlikeness.immunize import create
from unlikeness.immunize.attackers import Attackers, attacks_on_each, turn
from unlikeness.immunize.batch import predictions
from unlikeness.immunize.data import protected_subjects
from unlikeness.immunize.l2p import L2P
from unlikeness.immunize.unprotected import Unprotected
from unlikeness.personalize.objective import personalization_loss
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject


def test_every_subject_has_its_turn_in_every_round() -> None:
    settings = create("apdm", FEW).settings
    turns = [turn(settings, attack, 4) for attack in range(40)]
    rounds = [tuple(one.subject for one in turns[i : i + 4]) for i in range(0, 40, 4)]
    assert {frozenset(one) for one in rounds} == {frozenset(range(4))}
    assert len(set(rounds)) > 2
    assert not any(one.unprotected for one in turns)


def test_a_run_knows_whom_it_will_not_meet() -> None:
    def met(subjects: int, **further: Any) -> list[int]:
        return attacks_on_each(create("apdm", {**FEW, **further}).settings, subjects)

    assert met(2, outer_steps=5) in ([2, 3], [3, 2])
    assert sorted(met(4, outer_steps=6, attack_depth=4)) == [0, 1, 1, 1]  # an attack lasts for two steps
    assert sorted(met(4, outer_steps=4, unprotected_every=2)) == [0, 0, 1, 1]
    assert met(1, outer_steps=7) == [7]


def test_unprotected_subjects_come_between_the_rounds() -> None:
    without, with_ = create("apdm", FEW).settings, create("apdm", {**FEW, "unprotected_every": 3}).settings
    turns = [turn(with_, attack, 4) for attack in range(60)]
    assert [one.unprotected for one in turns] == [False, False, True] * 20
    protected = [one.subject for one in turns if not one.unprotected]
    assert protected == [turn(without, attack, 4).subject for attack in range(40)]
    assert {one.subject for one in turns if one.unprotected} == set(range(4))


def test_unprotected_subjects_may_begin_later() -> None:
    further = {"unprotected_every": 2, "unprotected_from": 0.4, "outer_steps": 20}
    without, later = create("apdm", FEW).settings, create("apdm", {**FEW, **further}).settings
    turns = [turn(later, attack, 3) for attack in range(20)]
    assert [one.unprotected for one in turns] == [False] * 8 + [False, True] * 6
    protected = [one.subject for one in turns if not one.unprotected]
    assert protected == [turn(without, attack, 3).subject for attack in range(14)]
    assert sum(attacks_on_each(later, 3)) == 14


@pytest.mark.parametrize("cap", [0.0, 20.0])
@pytest.mark.parametrize("prior_weight", [0.0, 0.5])
def test_the_loss_is_the_attackers_own(
    exact: TextToImage, dog: Subject, cap: float, prior_weight: float
) -> None:
    settings = create(
        "divert",
        {
            **FEW,
            "attack_prior_weight": prior_weight,
            "preserve_cap": cap,
            "unprotected_every": 2,
            "contexts": "",
        },
    ).settings
    [kept] = protected_subjects(exact, [dog], settings)
    unprotected, generator = Unprotected(exact, settings, "float32"), torch.Generator().manual_seed(3)
    attack = Attackers(exact, [kept], settings).draw(unprotected.draw(kept, generator), generator)
    batch = unprotected.batch(exact, attack, generator)
    rows = joined(batch)
    assert len(rows) == settings.batch_size * (2 if prior_weight else 1)
    assert all(part.reference_c is None for part in batch.parts.values())
    n = settings.batch_size
    assert torch.equal(rows.c[:n].tokens, attack.c_V.expand(n).tokens)
    with torch.no_grad():
        f = exact.predict(rows.z_t, rows.t, rows.c)
        found = unprotected.loss(predictions(exact, batch), batch)
    signal, noise = (values.double()[rows.t] for values in (exact.schedule.signal, exact.schedule.noise))
    w = (noise / signal).square().clamp(max=cap, min=1) if cap else torch.ones(len(f))
    each = w * (f - rows.target).square().flatten(1).mean(1)
    expected = each[:n].mean() + (prior_weight * each[n:].mean() if prior_weight else 0)
    assert torch.allclose(found, expected, rtol=1e-5)
    if not cap:  # the very loss that the simulated attacker and every personalization minimise
        shape = attack.target.data.subject.mean[0].shape
        z0 = (rows.z_t - noise[:, None, None, None] * rows.target) / signal[:, None, None, None]
        assert z0.shape[1:] == shape
        members = (z0[n:], attack.c_class) if prior_weight else (None, None)
        with torch.no_grad():
            same = personalization_loss(
                exact, z0[:n], attack.c_V, *members, prior_weight=prior_weight, t=rows.t, eps=rows.target
            )
        assert torch.allclose(found, same, rtol=1e-5)


def test_somewhere_else_the_place_is_added_to_what_the_picture_asks_for(
    exact: TextToImage, dog: Subject
) -> None:
    place = "a photo of {} at night"
    settings = create("divert", {**FEW, "unprotected_every": 2, "contexts": place, "batch_size": 12}).settings
    [kept] = protected_subjects(exact, [dog], settings)
    unprotected, generator = Unprotected(exact, settings, "float32"), torch.Generator().manual_seed(3)
    attack = Attackers(exact, [kept], settings).draw(unprotected.draw(kept, generator), generator)
    rows = joined(unprotected.batch(exact, attack, generator))
    n = settings.batch_size
    subject = attack.subject
    c_usual, c_there = exact.condition([attack.prompt]), exact.condition([subject.prompt(place)])
    moved = [bool(torch.equal(c, c_there.tokens[0])) for c in rows.c.tokens[:n]]
    assert 0 < sum(moved) < n
    z0 = attack.target.data.subject.mean
    signal, noise = (values.double()[rows.t[:n]] for values in (exact.schedule.signal, exact.schedule.noise))
    with torch.no_grad():
        answers = [
            exact.predict(rows.z_t[:n], rows.t[:n], exact.condition([prompt]).expand(n))
            for prompt in (subject.prompt(place, of_class=True), attack.class_prompt)
        ]
    shift = (answers[0] - answers[1]) * torch.tensor(moved)[:, None, None, None]
    eps = rows.target[:n] - shift
    for i, there in enumerate(moved):
        assert there or torch.equal(rows.c.tokens[i], c_usual.tokens[0])
        own = (rows.z_t[i] - noise[i] * eps[i]) / signal[i]  # the picture, but for the autoencoder's noise
        spread = 6 * attack.target.data.subject.std.max() + 1e-4 * noise[i] / signal[i]
        assert (own - z0[0]).abs().max() < spread
    assert shift[moved].abs().max() > 0
    assert torch.equal(rows.c[n:].tokens, attack.c_class.expand(n).tokens)


def test_how_many_rows_are_somewhere_can_be_told(exact: TextToImage, dog: Subject) -> None:
    def moved(share: float) -> int:
        further = {"unprotected_every": 2, "unprotected_placed": share, "contexts": "a photo of {} at night"}
        settings = create("divert", {**FEW, **further, "batch_size": 40}).settings
        [kept] = protected_subjects(exact, [dog], settings)
        unprotected, generator = Unprotected(exact, settings, "float32"), torch.Generator().manual_seed(3)
        attack = Attackers(exact, [kept], settings).draw(unprotected.draw(kept, generator), generator)
        c = unprotected.batch(exact, attack, generator)["subject"].c.tokens
        there = exact.condition([attack.subject.prompt("a photo of {} at night")]).tokens[0]
        return sum(bool(torch.equal(one, there)) for one in c)

    assert (moved(0.0), moved(1.0)) == (0, 40)
    assert 10 <= moved(0.5) < moved(0.9) < 40


def test_it_is_a_class_picture_under_the_subjects_name(exact: TextToImage, dog: Subject) -> None:
    settings = create("divert", FEW).settings
    [kept] = protected_subjects(exact, [dog], settings)
    unprotected, generator = Unprotected(exact, settings, "float32"), torch.Generator().manual_seed(0)
    drawn = [unprotected.draw(kept, generator) for _ in range(40)]
    assert {one.subject.instance_prompt for one in drawn} == {dog.instance_prompt}
    pictures = [mean.flatten().tolist() for mean in kept.prior.mean]
    assert {pictures.index(one.data.subject.mean[0].flatten().tolist()) for one in drawn} == set(
        range(len(pictures))
    )


def test_an_attack_on_it_gives_the_gradient_of_learning_it(exact: TextToImage, dog: Subject) -> None:
    """The outer step's gradient is that of the attacker's loss where the attack has led, and no more."""
    further: dict[str, Any] = {"unprotected_every": 2, "inner_steps": 1, "attack_clip": 0.0}
    defence = create("apdm", {**FEW, **further})
    working = exact.copy()
    l2p = L2P(working, exact, defence, protected_subjects(exact, [dog], defence.settings))
    asked: list[Any] = []
    batch = l2p.unprotected.batch

    def watched(*args: Any) -> Any:
        asked.append(batch(*args))
        return asked[-1]

    l2p.unprotected.batch = watched  # type: ignore[method-assign, assignment]
    l2p(0, step_generator(0, 0))
    assert not asked
    for theta in l2p.theta:
        theta.grad = None
    l2p(1, step_generator(0, 1))
    [one] = asked
    working.denoiser.requires_grad_(True)
    f = predictions(working, one)  # an attack of depth 0 leaves its weights in place
    loss = l2p.unprotected.loss(f, one)
    expected = torch.autograd.grad(loss, l2p.weights.attacked, allow_unused=True)
    for theta, wanted in zip(l2p.theta, expected, strict=True):
        assert (theta.grad is None) == (wanted is None)
        if wanted is not None:
            assert theta.grad is not None
            assert torch.allclose(theta.grad, wanted, rtol=1e-4, atol=1e-9)
