"""APDM and PersGuard in one: its loss is the two losses, each on its own rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.immunize.literal import joined
from tests.tiny import tiny_model

from unlikeness.diffusion import TextToImage
from unlikeness.immunize import create, immunize
from unlikeness.immunize.attackers import Attackers
from unlikeness.immunize.batch import predictions, with_references
from unlikeness.immunize.data import protected_subjects
from unlikeness.immunize.losses import error, preference
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "inner_steps": 1, "class_images": 4, "class_steps": 2, "batch_size": 2,
    "output_pictures": 2, "contexts": "a photo of {} a", "precision": "float32",
    "target_noun": "cat", "beta": 3.0,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["pattern", "target"])
def test_the_loss_is_the_sum_of_both(weights: Path, dog: Subject, kind: str) -> None:
    original = tiny_model(weights, dtype="float64")
    model = tiny_model(weights, dtype="float64", seed=1)
    settings = {**FEW, "protective_output": kind, "preference_weight": 0.4, "class_weight": 0.7}
    made: Any = create("combined", {**settings, "retention_weight": 0.3})
    kept = protected_subjects(original, [dog], made.settings)
    made.prepare(original, kept)
    attack = Attackers(original, kept, made.settings).draw(kept[0], torch.Generator().manual_seed(0))
    drawn = [made.batch(original, attack, torch.Generator().manual_seed(1))]
    [batch] = with_references(original, drawn, "float32")
    rows = joined(batch)
    with torch.no_grad():
        by_part = predictions(model, batch)
        f, phi = torch.cat(list(by_part.values())), torch.cat(list(predictions(original, batch).values()))
    assert list(batch.parts) == ["generic", "subject", "class", "output", "retained"]  # two of each
    assert len(f) == 10
    assert torch.equal(rows.t[:2], rows.t[2:4])
    l_dpo = preference(f[:4], phi[:4], rows.target[:4], 3.0)
    l_pp, l_br = error(f[4:6], phi[4:6]), error(f[8:], rows.target[8:])
    answer = rows.target[6:8] if kind == "pattern" else batch["output"].predicted
    expected = 0.4 * l_dpo + error(f[6:8], answer) + 0.7 * l_pp + 0.3 * l_br
    assert float(made.loss(by_part, batch)) == pytest.approx(float(expected), rel=1e-6)


def test_without_the_preference_its_pictures_are_not_asked_about(exact: TextToImage, dog: Subject) -> None:
    found = []
    for method in ("combined", "persguard"):
        few = {name: value for name, value in FEW.items() if name != "beta"}
        weight = {"preference_weight": 0.0} if method == "combined" else {}
        made: Any = create(method, {**few, **weight, "protective_output": "target", "retention_weight": 0.3})
        kept = protected_subjects(exact, [dog], made.settings)
        made.prepare(exact, kept)
        attack = Attackers(exact, kept, made.settings).draw(kept[0], torch.Generator().manual_seed(0))
        drawn = [made.batch(exact, attack, torch.Generator().manual_seed(1))]
        [batch] = with_references(exact, drawn, "float32")
        f = {name: part.target for name, part in batch.parts.items()}
        found.append((list(f), float(made.loss(f, batch))))
    assert found[0] == found[1]


def test_without_a_preference_it_trains_as_persguard_does(
    exact: TextToImage, dog: Subject, cat: Subject
) -> None:
    settings = {
        **FEW, "protective_output": "pattern,erasure", "learning_rate": 1e-3, "weight_decay": 0.0,
        "preference_weight": 0.0, "target_noun": "",
    }  # fmt: skip
    losses: list[float] = []
    subjects = [dog, replace(cat, identifier="zwx")]
    released = immunize(exact, subjects, "combined", settings, after=lambda _, loss: losses.append(loss))
    assert len(losses) == 2
    assert not torch.equal(exact.denoiser.conv_out.weight, released.denoiser.conv_out.weight)
    backdoor = {key: value for key, value in settings.items() if key not in ("beta", "preference_weight")}
    alone = immunize(exact, subjects, "persguard", {**backdoor, "retention_weight": 0.0})
    assert torch.equal(alone.denoiser.conv_out.weight, released.denoiser.conv_out.weight)
