"""APDM with the attacker's gradient in the sum, against the equations written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from experiments.leak import create
from tests.immunize import literal
from tests.immunize.test_l2p import FEW
from tests.tiny import pictures, tiny_model

from unlikeness.immunize import immunize
from unlikeness.immunize.data import protected_subjects
from unlikeness.subjects import Subject


def test_the_attackers_gradient_is_in_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dog = tiny_model(tmp_path, dtype="float64"), Subject(pictures(3, seed=1), "dog")
    made, watch = create("apdm_leak", {**FEW, "beta": 10.0}), literal.Watch()
    priors = {"dog": protected_subjects(model, [dog], made.settings)[0].prior}
    with monkeypatch.context() as patch:
        watch.on(patch)
        released = immunize(model, [dog], made, priors=priors)
    expected = literal.l2p(
        model, literal.apdm(model, 2, 10.0), watch.draws, outer_steps=2, inner_steps=2, batch=2,
        outer_lr=1e-3, inner_lr=2e-3, leak=True,
    )  # fmt: skip
    start = [p.detach() for p in model.denoiser.parameters()]
    for before, wanted, found in zip(start, expected, released.denoiser.parameters(), strict=True):
        assert not torch.equal(before, found)
        assert torch.allclose(found - before, wanted - before, rtol=1e-3, atol=1e-7)
