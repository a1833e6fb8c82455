"""The attacker converged: when it stops, and that its chunks are one training."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unlikeness import personalize
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError
from unlikeness.personalize.dreambooth import DreamBoothSettings
from unlikeness.subjects import Subject
from unlikeness.verify import attack
from unlikeness.verify.attack import has_converged, until_converged

CHUNK = DreamBoothSettings(steps=3, learning_rate=1e-3, class_images=0, precision="float32")


def weights(model: TextToImage) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


@pytest.mark.parametrize(
    ("losses", "stop"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.49], False),  # 2 % lower
        ([0.5, 0.496], True),  # less than 1 %
        ([0.5, 0.6], True),
        ([0.5, 0.4, 0.3, 0.2], True),  # as many as there may be
    ],
)
def test_stops_when_the_loss_falls_by_less_than_a_hundredth(losses: list[float], stop: bool) -> None:
    assert has_converged(losses, most=4, least_fall=0.01) is stop


def test_chunks_are_one_training(
    model: TextToImage, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.5, 0.4, 0.399])
    monkeypatch.setattr(attack, "mean_loss_over_levels", lambda *_, **__: next(found))
    tuned, losses = until_converged(model, subject, "dreambooth", CHUNK)
    assert losses == [0.5, 0.4, 0.399]
    nine = DreamBoothSettings(steps=9, learning_rate=1e-3, class_images=0, precision="float32")
    assert torch.equal(weights(tuned), weights(personalize.personalize(model, subject, "dreambooth", nine)))


def test_one_tuned_model_at_a_time_is_in_memory(
    model: TextToImage, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[TextToImage]] = []
    real = personalize.personalize

    def build(*args: Any, **further: Any) -> TextToImage:
        gc.collect()
        assert not any(one() for one in alive)
        tuned = real(*args, **further)
        alive.append(weakref.ref(tuned))
        return tuned

    monkeypatch.setattr(personalize, "personalize", build)
    losses = iter([0.5, 0.4, 0.3])
    monkeypatch.setattr(attack, "mean_loss_over_levels", lambda *_, **__: next(losses))
    until_converged(model, subject, "dreambooth", CHUNK, most=3)
    assert len(alive) == 3


def test_the_loss_that_counts_is_its_own_and_falls(model: TextToImage, subject: Subject) -> None:
    chunk = DreamBoothSettings(steps=20, learning_rate=2e-3, class_images=0, precision="float32")
    _, losses = until_converged(model, subject, "dreambooth", chunk, most=2)
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_goes_on_after_an_interruption(
    model: TextToImage, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[float] = [0.5, 0.4]

    def loss(*_: object, **__: object) -> float:
        if not found:
            raise KeyboardInterrupt
        return found.pop(0)

    monkeypatch.setattr(attack, "mean_loss_over_levels", loss)
    with pytest.raises(KeyboardInterrupt):
        until_converged(model, subject, "dreambooth", CHUNK, scratch=tmp_path)
    assert json.loads((tmp_path / "losses.json").read_text()) == [0.5, 0.4]
    found.append(0.45)
    tuned, losses = until_converged(model, subject, "dreambooth", CHUNK, scratch=tmp_path)
    assert losses == [0.5, 0.4, 0.45]
    # At the end nothing is measured again, and the model is the same.
    again, losses = until_converged(model, subject, "dreambooth", CHUNK, scratch=tmp_path)
    assert losses == [0.5, 0.4, 0.45]
    assert torch.equal(weights(again), weights(tuned))

    (tmp_path / "losses.json").write_text("{")
    with pytest.raises(UnlikenessError, match=r"losses\.json is damaged"):
        until_converged(model, subject, "dreambooth", CHUNK, scratch=tmp_path)
