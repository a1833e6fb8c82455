"""ASPL: Algorithm 1 in its order, within the budget, and a loss that a model learning the subject feels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.protect.folders import contents, lines
from tests.protect.test_tiles import write
from tests.tiny import encoder_of, pictures, write_tiny
from torch import Tensor

from unlikeness import protect
from unlikeness.autoencoders import Posterior
from unlikeness.cli import main
from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.diffusion.lora import merged_copy
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.personalize import personalize
from unlikeness.personalize.data import Data
from unlikeness.personalize.objective import PersonalizationStep
from unlikeness.protect import learning, together
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.methods.aspl import Aspl, AsplSettings
from unlikeness.seeds import derive
from unlikeness.subjects import Subject

SUBJECT = Subject(pictures(3, seed=5), "dog")
QUICK = AsplSettings(rounds=2, clean_steps=2, perturbed_steps=2, pgd_steps=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def prior(model: TextToImage) -> Posterior:
    return model.encode_all(pictures(4, seed=8))


def loss(model: TextToImage, images: Tensor) -> float:
    """L_diff of the subject's pictures under its prompt, over draws that no method has used."""
    z0 = model.encode_all(images).mean.repeat(32, 1, 1, 1)
    with torch.no_grad():
        c = model.condition([SUBJECT.instance_prompt])
        return float(diffusion_loss(model, z0, c, generator=torch.Generator().manual_seed(77)))


def weights_of(model: TextToImage) -> list[Tensor]:
    parts = (model.denoiser, model.autoencoder.network, encoder_of(model))
    return [value.clone() for part in parts for value in part.state_dict().values()]


@pytest.mark.parametrize("budget", [1.0, 8.0])
def test_the_result_is_within_the_budget_and_the_range(
    model: TextToImage, prior: Posterior, budget: float
) -> None:
    images = SUBJECT.images.clone()
    images[0] = images[0].round()  # at the ends of the range
    subject = dataclasses.replace(SUBJECT, images=images.clone())
    settings = dataclasses.replace(QUICK, budget=budget)
    result = Aspl(model, settings).perturb_subject(subject, 0, prior)
    assert result.shape == images.shape
    assert (result - images).abs().max() <= budget / 255 + 1e-7
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.equal(subject.images, images)
    if budget:
        moved = (result - images).abs().max() * 255
        assert moved > 0.9 * min(budget, 8 * 0.64)


def test_the_seed_decides_the_result_and_the_model_stays_as_it_is(
    model: TextToImage, prior: Posterior
) -> None:
    before = weights_of(model)
    model.denoiser.train()
    seen: list[int] = []
    made = Aspl(model, QUICK)
    try:
        first = made.perturb_subject(SUBJECT, 1, prior, seen.append)
        assert model.denoiser.training
    finally:
        model.freeze()
    torch.manual_seed(99)
    assert torch.equal(made.perturb_subject(SUBJECT, 1, prior), first)
    assert not torch.equal(made.perturb_subject(SUBJECT, 2, prior), first)
    assert seen == [*range(1, sum(made.work()) + 1)]  # the class pictures are given
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), before, strict=True))
    for part in (model.denoiser, model.autoencoder.network, encoder_of(model)):
        assert not any(p.requires_grad or p.grad is not None for p in part.parameters())


def test_a_model_that_learns_the_subject_loses_on_its_perturbed_pictures(
    model: TextToImage, prior: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[TextToImage] = []

    def copy(original: TextToImage) -> TextToImage:
        kept.append(merged_copy(original))
        return kept[-1]

    monkeypatch.setattr(learning, "merged_copy", copy)
    settings = dataclasses.replace(QUICK, rounds=5, pgd_steps=6)
    perturbed = Aspl(model, settings).perturb_subject(SUBJECT, 0, prior)
    (surrogate,) = kept  # one copy in all, not one a round
    learnt = {"steps": 20, "learning_rate": 1e-3}
    attacker = personalize(model, SUBJECT, "dreambooth", learnt, prior=prior)
    noise = protect.create("noise", model).perturb(SUBJECT.images, [0, 1, 2])
    for judge in (surrogate, attacker, model):
        assert loss(judge, perturbed) > 1.2 * loss(judge, SUBJECT.images)
        assert loss(judge, perturbed) > 1.1 * loss(judge, noise)


def test_the_rounds_are_those_of_algorithm_1(
    model: TextToImage, prior: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(a) θ' from θ on the clean pictures, (b) PGD under θ', (c) θ, not θ', on the perturbed ones."""
    events: list[tuple[str, Tensor, Tensor]] = []
    pictures_seen: list[int] = []
    move, learn, draw = together.Ascent.move, learning.Learner.learn, Data.draw

    def flat(parameters: Sequence[Tensor]) -> Tensor:
        return torch.cat([p.detach().flatten() for p in parameters])

    def spied_learn(self: Any, material: Any, steps: int, *rest: Any) -> None:
        before = flat(self.parameters)
        learn(self, material, steps, *rest)
        clean = torch.equal(material.subject.mean, model.encode_all(SUBJECT.images).mean)
        assert material.prior is prior
        events.append((f"{'clean' if clean else 'perturbed'} {steps}", before, flat(self.parameters)))

    def spied_move(self: Any, current: Tensor, original: Tensor, generators: Any) -> Tensor:
        moved = move(self, current, original, generators)
        events.append(("pgd", flat(list(self.surrogates[0].whole.denoiser.parameters())), moved))
        assert torch.equal(original, SUBJECT.images)
        return moved

    def spied_draw(self: Any, index: int, *rest: Any) -> Any:
        pictures_seen.append(index % self.count)
        return draw(self, index, *rest)

    monkeypatch.setattr(learning.Learner, "learn", spied_learn)
    monkeypatch.setattr(together.Ascent, "move", spied_move)
    monkeypatch.setattr(Data, "draw", spied_draw)
    settings = AsplSettings(rounds=2, clean_steps=2, perturbed_steps=3, pgd_steps=2, learning_rate=1e-3)
    result = Aspl(model, settings).perturb_subject(SUBJECT, 0, prior)

    assert [event[0] for event in events] == ["clean 2", "pgd", "pgd", "perturbed 3"] * 2
    theta = flat(list(model.denoiser.parameters()))
    for clean, first, second, perturbed in (events[:4], events[4:]):
        assert torch.equal(clean[1], theta)
        assert not torch.equal(clean[2], theta)
        assert torch.equal(first[1], clean[2])
        assert torch.equal(second[1], clean[2])
        assert torch.equal(perturbed[1], theta)
        assert not torch.equal(perturbed[2], theta)
        theta = perturbed[2]
    assert torch.equal(events[6][2], result)
    assert pictures_seen == [0, 1, 0, 1, 2, 2, 0, 0, 1, 2]  # turns go on in the next round


def test_without_training_it_is_advdm_under_the_instance_prompt(model: TextToImage) -> None:
    still = AsplSettings(rounds=2, clean_steps=0, perturbed_steps=0, pgd_steps=3, prior_weight=0.0)
    advdm = AdvDM(
        model,
        AdvDMSettings(steps=6, step_size=0.64, random_start=False, prompt=SUBJECT.instance_prompt),
    )
    seeds = [derive(4, "picture", i) for i in range(3)]
    wanted = advdm.perturb(SUBJECT.images, seeds)
    assert torch.equal(Aspl(model, still).perturb_subject(SUBJECT, 4), wanted)


def test_only_latents_that_change_are_encoded_again(
    model: TextToImage, prior: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    encode_all = TextToImage.encode_all

    def counted(self: TextToImage, images: Tensor, **more: Any) -> Posterior:
        counts.append(len(images))
        return encode_all(self, images, **more)

    monkeypatch.setattr(TextToImage, "encode_all", counted)
    monkeypatch.setattr(TextToImage, "generate", None)  # a given prior is not drawn again
    Aspl(model, QUICK).perturb_subject(SUBJECT, 0, prior)
    assert counts == [3] * (1 + QUICK.rounds)
    counts.clear()
    Aspl(model, dataclasses.replace(QUICK, perturbed_steps=0)).perturb_subject(SUBJECT, 0, prior)
    assert counts == [3]


def test_a_fixed_surrogate_is_a_dreambooth_model(
    model: TextToImage, prior: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSMG of the same paper: one round, and no training on the perturbed pictures."""
    settings = AsplSettings(
        rounds=1, clean_steps=20, perturbed_steps=0, pgd_steps=20, learning_rate=1e-3
    )  # fmt: skip
    steps: list[int] = []
    call = PersonalizationStep.__call__

    def counted(self: PersonalizationStep, index: int, generator: torch.Generator) -> Tensor:
        steps.append(index)
        return call(self, index, generator)

    monkeypatch.setattr(PersonalizationStep, "__call__", counted)
    perturbed = Aspl(model, settings).perturb_subject(SUBJECT, 0, prior)
    assert steps == list(range(20))
    attacker = personalize(model, SUBJECT, "dreambooth", {"steps": 20, "learning_rate": 1e-3}, prior=prior)
    assert loss(attacker, perturbed) > 1.2 * loss(attacker, SUBJECT.images)


def test_pictures_of_another_size_keep_it(model: TextToImage, prior: Posterior) -> None:
    subject = Subject(pictures(5, size=48), "dog")  # and more of them than one batch holds
    settings = dataclasses.replace(QUICK, rounds=1)
    result = Aspl(model, settings).perturb_subject(subject, 0, prior)
    assert result.shape == (5, 3, 48, 48)
    assert ((result - subject.images).abs().flatten(1).amax(1) > 1 / 255).all()
    assert (result - subject.images).abs().max() <= 8 / 255 + 1e-7


def test_half_precision_models_are_learnt_in_full(model: TextToImage, prior: Posterior) -> None:
    half = model.copy(conditioner=True).to(dtype="bfloat16")
    result = Aspl(half, dataclasses.replace(QUICK, rounds=1)).perturb_subject(SUBJECT, 0, prior)
    assert half.dtype == torch.bfloat16
    assert result.dtype == torch.float32
    assert (result - SUBJECT.images).abs().max() > 1 / 255


def test_a_batch_is_one_subject_and_what_is_known_together_is_computed_once(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(QUICK, class_noun="dog", prior_weight=0.0)
    made = Aspl(model, settings)
    alone = made.perturb(SUBJECT.images, [5, 6, 7])
    assert 1 / 255 < (alone - SUBJECT.images).abs().max() <= 8 / 255 + 1e-7
    learnt: list[int] = []
    learn = learning.Learner.learn

    def counted(self: Any, material: Any, steps: int, *rest: Any) -> None:
        learnt.append(steps)
        learn(self, material, steps, *rest)

    monkeypatch.setattr(learning.Learner, "learn", counted)
    before = made.fingerprint
    again = Aspl(model, settings)
    again.together(list(SUBJECT.images), [5, 6, 7])
    assert again.fingerprint == before != Aspl(model, settings).fingerprint
    parts = [again.perturb(SUBJECT.images[i : i + 1], [5 + i]) for i in (2, 0, 1)]
    assert torch.equal(torch.cat(parts), alone[[2, 0, 1]])
    assert len(learnt) == 2 * settings.rounds
    again.together([SUBJECT.images[0], SUBJECT.images[1][:, :16, :16]], [5, 6])
    smaller = again.perturb(SUBJECT.images[1:2, :, :16, :16], [6])
    assert 0 < (smaller - SUBJECT.images[1:2, :, :16, :16]).abs().max() <= 8 / 255 + 1e-7


def test_a_run_protects_its_pictures_together_and_says_what_it_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = write_tiny(tmp_path / "my-model")
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "in" / name, 40, 40, seed=ord(name[0]))
    command = ["protect", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-q", "--method", "aspl"]
    for setting in ("class_noun=dog", "rounds=1", "clean_steps=1", "perturbed_steps=1", "pgd_steps=3",
                    "step_size=2", "prior_weight=0"):  # fmt: skip
        command += ["--set", setting]
    command += ["--model", str(tiny)]
    assert main([*command, "--dry-run"]) == 0
    assert "3 pictures, 3 tiles, about" in capsys.readouterr().out
    assert main(command) == 0
    assert "3 protected" in capsys.readouterr().out
    first = contents(tmp_path / "out")
    fingerprints = {line["recipe"]["fingerprint"] for line in lines(tmp_path / "out")}
    assert len(fingerprints) == 1
    (tmp_path / "out" / "b.png").unlink()
    assert main(command) == 0  # goes on, and makes the same picture
    assert "1 protected, 2 done before" in capsys.readouterr().out
    assert contents(tmp_path / "out")["b.png"] == first["b.png"]
    (tmp_path / "in" / "c.png").unlink()
    assert main(command) == 0  # the subject is another one
    assert "2 protected" in capsys.readouterr().out


def test_what_cannot_be_done_is_one_sentence(model: TextToImage, prior: Posterior) -> None:
    with pytest.raises(UsageError, match="model reads the first 16"):
        Aspl(model, QUICK).perturb_subject(Subject(SUBJECT.images, "dog " * 20), 0, prior)
    wild = dataclasses.replace(QUICK, learning_rate=1e30)
    with pytest.raises(UnlikenessError, match="the surrogate diverged"):
        Aspl(model, wild).perturb_subject(SUBJECT, 0, prior)
