"""Divert: its loss against the equations written out, and what it does to a fine-tune."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.immunize import literal
from tests.tiny import tiny_model
from torch import Tensor

from unlikeness.diffusion import NoiseSchedule, TextToImage
from unlikeness.errors import UsageError
from unlikeness.immunize import create, immunize
from unlikeness.immunize.attacks import Mixture
from unlikeness.immunize.material import keep
from unlikeness.immunize.rows import ask, wide
from unlikeness.immunize.weighting import z0_weight
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "inner_steps": 2, "class_images": 4, "class_steps": 2, "batch_size": 8,
    "attack_batch_size": 2, "contexts": "a photo of {} a|a photo of {} b", "precision": "float32",
    "learning_rate": 1e-3, "attack_learning_rate": 1e-3,
}  # fmt: skip


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_its_equation_written_out(
    weights: Path, dog: Subject, prediction_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, gamma, cap = FEW["batch_size"], 0.7, 5.0
    original = tiny_model(weights, prediction_type, dtype="float64")
    model = tiny_model(weights, prediction_type, dtype="float64", seed=1)
    made: Any = create("divert", {**FEW, "repulsion": gamma, "weight_cap": cap, "class_weight": 0.3})
    kept = keep(original, [dog], made.settings)
    made.prepare(original, kept)
    attack = Mixture(original, kept, made.settings).draw(kept[0], torch.Generator().manual_seed(0))
    watch, asked = literal.Watch(), _watch_prompts(monkeypatch)
    with monkeypatch.context() as patch:
        watch.on(patch)
        rows = made.rows(original, attack, torch.Generator().manual_seed(1))
    named, of_class = asked[0], asked[1]  # of the rows in a context
    [rows] = ask(original, [rows], "float32")
    with torch.no_grad():
        found = made.loss(wide(model.predict(rows.z_t, rows.t, rows.c)), rows)

    def weight(t: Tensor) -> Tensor:
        a = original.scheduler.alphas_cumprod[t].double().squeeze()
        w: Tensor = (1 - a) / a if prediction_type == "epsilon" else 1 - a
        return w.clamp(max=cap)

    both, held = watch.draws
    assert 0 < len(named) < 2 * n
    assert {prompt.replace("sks dog", "a dog") for prompt in named} == set(of_class)
    # Where no context was drawn, the prompt is the attack's own.
    here = [bool(torch.equal(c, attack.c_V[0])) for c in rows.c[: 2 * n]]
    assert here.count(False) == len(named)
    c, c_class = rows.c[: 2 * n], rows.reference_c[: 2 * n]
    for place, prompt, plain in zip(
        [i for i, at in enumerate(here) if not at], named, of_class, strict=True
    ):
        assert torch.equal(c[place], original.embed([prompt])[0])
        assert torch.equal(c_class[place], original.embed([plain])[0])
    least = original.schedule.steps * made.settings.least_level
    assert int(both[2].min()) >= least
    expected = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for i in range(2 * n):
            draw = literal.part(both, slice(i, i + 1))
            ours = literal.difference(model, model.unet, draw, c[i : i + 1])
            theirs = literal.difference(original, original.unet, draw, c_class[i : i + 1])
            # Both without the target: g − target is φ's difference, and (1 + γ) times that for the subject.
            goal = theirs * (1 + gamma) if i < n else theirs
            expected += weight(draw[2]) * ((ours - goal) ** 2).mean() / (2 * n)
        c_c = original.embed(["a photo of a dog"])
        for i in range(n):
            draw = literal.part(held, slice(i, i + 1))
            moved = literal.difference(model, model.unet, draw, c_c)
            moved = moved - literal.difference(original, original.unet, draw, c_c)
            expected += 0.3 * weight(draw[2]) * (moved**2).mean() / n
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def _watch_prompts(patch: pytest.MonkeyPatch) -> list[list[str]]:
    asked: list[list[str]] = []
    embed: Callable[..., Tensor] = TextToImage.embed

    def watched(self: TextToImage, prompts: list[str], **further: Any) -> Tensor:
        asked.append(list(prompts))
        return embed(self, prompts, **further)

    patch.setattr(TextToImage, "embed", watched)
    asked.clear()
    return asked


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample", "flow"])
def test_the_weight_is_what_an_error_means_for_z0(prediction_type: str) -> None:
    alpha_bar = torch.linspace(0.99, 0.01, 50, dtype=torch.float64)
    schedule = NoiseSchedule.from_alpha_bar(alpha_bar, prediction_type)
    if prediction_type == "flow":
        schedule = NoiseSchedule(1 - torch.arange(1, 51) / 51, torch.arange(1, 51) / 51, "flow")
    t = torch.tensor([0, 10, 30, 49])
    f, z_t = torch.zeros(2, 4, 1, 2, 2, dtype=torch.float64)
    moved = schedule.predict_z0(f + 0.1, z_t, t) - schedule.predict_z0(f, z_t, t)
    expected = (moved / 0.1).square().flatten(1).mean(1)
    assert torch.allclose(z0_weight(schedule, t, 1e9).double(), expected, rtol=1e-5)
    assert float(z0_weight(schedule, t, 0.5).max()) <= 0.5


def test_the_name_comes_to_mean_the_class(exact: TextToImage, dog: Subject) -> None:
    """Without attacks and repulsion its minimum is the original's answer under the class prompt."""
    further = {"inner_steps": 0, "depth": 0, "outer_steps": 80, "repulsion": 0.0}
    settings = {**FEW, **further, "learning_rate": 3e-3}
    losses: list[float] = []
    immunize(exact, [dog], "divert", settings, after=lambda _, loss: losses.append(loss))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_without_contexts_it_is_about_the_training_prompt_alone(exact: TextToImage, dog: Subject) -> None:
    made: Any = create("divert", {**FEW, "contexts": ""})
    kept = keep(exact, [dog], made.settings)
    made.prepare(exact, kept)
    attack = Mixture(exact, kept, made.settings).draw(kept[0], torch.Generator().manual_seed(0))
    rows = made.rows(exact, attack, torch.Generator().manual_seed(1))
    assert all(torch.equal(c, attack.c_V[0]) for c in rows.c[:16])
    assert all(torch.equal(c, attack.c_class[0]) for c in (*rows.c[16:], *rows.reference_c))


def test_a_context_without_a_place_for_the_name_is_refused(exact: TextToImage, dog: Subject) -> None:
    with pytest.raises(UsageError, match="must contain"):
        immunize(exact, [dog], "divert", {**FEW, "contexts": "in the snow"})
