"""Simulated attackers that train the text encoder too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.immunize.test_l2p import FEW, moved
from tests.tiny import encoder_of
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.immunize import create, immunize
from unlikeness.immunize.attackers import Attackers
from unlikeness.immunize.batch import Batch
from unlikeness.immunize.data import protected_subjects
from unlikeness.immunize.l2p import L2P
from unlikeness.personalize.objective import personalization_loss
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject

READING: dict[str, Any] = {**FEW, "attack_text_encoder": 1.0, "attack_clip": 0.0}


def weights_of(model: TextToImage) -> list[Tensor]:
    return [p.detach().clone() for p in encoder_of(model).parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(one, other, strict=True))


def engine(exact: TextToImage, dog: Subject, method: str, further: dict[str, Any]) -> L2P:
    defence = create(method, {**READING, **further})
    kept = protected_subjects(exact, [dog], defence.settings)
    defence.prepare(exact, kept)
    return L2P(exact.copy(conditioner=True), exact, defence, kept)


def test_the_attacker_moves_its_text_encoder_as_a_dreambooth_would(exact: TextToImage, dog: Subject) -> None:
    l2p = engine(exact, dog, "apdm", {"attack_depth": 4})
    generator = step_generator(0, 0)
    l2p._restart(0, generator)
    before, working = weights_of(l2p.working), l2p.working
    state = generator.get_state()
    z0, z0_class = l2p.subjects[0].data.draw(0, 2, generator)
    copied = exact.copy(conditioner=True)
    encoder_of(copied).requires_grad_(True)
    c = copied.condition([dog.instance_prompt, dog.class_prompt], grad=True)
    loss = personalization_loss(copied, z0, c[:1], z0_class, c[1:], generator=generator)
    expected = torch.autograd.grad(loss, list(encoder_of(copied).parameters()), allow_unused=True)
    generator.set_state(state)
    l2p.attacker.step(generator)
    for p, wanted in zip(encoder_of(working).parameters(), expected, strict=True):
        assert (p.grad is None) == (wanted is None)
        assert wanted is None or torch.allclose(p.grad, wanted)
    assert not same(before, weights_of(working))
    l2p.attacker.end()
    assert same(before, weights_of(working))


@pytest.mark.parametrize("method", ["apdm", "adversarial", "persguard", "divert", "unprotected"])
def test_the_attacked_model_is_asked_in_its_own_words_and_the_original_in_its_own(
    exact: TextToImage, dog: Subject, method: str
) -> None:
    """At every point, the first one included, the encoder has taken as many steps as the attacker."""
    further: dict[str, Any] = {"inner_steps": 2, "attack_depth": 0}
    if method in ("persguard", "divert"):
        further |= {"contexts": "{} x", "output_pictures": 1}
    if method == "unprotected":
        further |= {"unprotected_every": 2}
    l2p = engine(exact, dog, "apdm" if method == "unprotected" else method, further)
    names = ("sks dog", "a dog")
    prompts = [template.format(name) for template in ("a photo of {}", "{} x") for name in names]
    prompts += ["a photo x", "a photo", "x"]
    own = exact.condition(prompts).tokens
    asked: list[int] = []
    protects = l2p._protects

    def watched(batch: Batch) -> float:
        now = l2p.working.condition(prompts).tokens
        assert not any(torch.equal(one, other) for one, other in zip(now, own, strict=True))
        for part in batch.parts.values():
            assert all(any(torch.equal(c, one) for one in now) for c in part.c.tokens)
            reference: Any = [] if part.reference_c is None else part.reference_c.tokens
            assert all(any(torch.equal(c, one) for one in own) for c in reference)
        asked.append(l2p.attacker.steps)
        return protects(batch)

    l2p._protects = watched  # type: ignore[method-assign]
    for index in range(2):
        l2p(index, step_generator(0, index))
    assert asked == [1, 2, 1, 2]


def test_what_is_released_reads_as_before(exact: TextToImage, dog: Subject) -> None:
    before = weights_of(exact)
    released = immunize(exact, [dog], "apdm", {**FEW, "attack_text_encoder": 1.0})
    assert encoder_of(released) is encoder_of(exact)
    assert same(before, weights_of(exact))
    assert torch.equal(released.condition(["a dog"]).tokens, exact.condition(["a dog"]).tokens)
    assert not any(p.requires_grad for p in encoder_of(exact).parameters())
    without = immunize(exact, [dog], "apdm", FEW)
    assert moved(without, released)


def test_a_share_of_the_attackers_does(exact: TextToImage, dog: Subject) -> None:
    mixed = {**FEW, "attack_text_encoder": 0.4, "attack_low_rank": 0.5, "attack_ranks": "2"}
    settings = create("apdm", mixed).settings
    kept = protected_subjects(exact, [dog], settings)
    mixture = Attackers(exact, kept, settings)
    generator = torch.Generator().manual_seed(0)
    drawn = [mixture.draw(kept[0], generator) for _ in range(400)]
    full = [one for one in drawn if not one.rank]
    assert not any(one.text_encoder for one in drawn if one.rank)
    assert 0.3 < sum(one.text_encoder for one in full) / len(full) < 0.5
