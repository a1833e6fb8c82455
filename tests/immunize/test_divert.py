"""Divert: its loss against the equations written out, and what it does to a fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.immunize import literal
from tests.tiny import tiny_model
from torch import Tensor

from unlikeness.diffusion import Condition, Schedule, TextToImage
from unlikeness.errors import UsageError
from unlikeness.immunize import create, immunize
from unlikeness.immunize.attackers import Attackers
from unlikeness.immunize.batch import predictions, with_references
from unlikeness.immunize.data import ProtectedSubject, protected_subjects
from unlikeness.immunize.losses import z0_weight
from unlikeness.immunize.outputs import watermarked
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "inner_steps": 2, "class_images": 4, "class_steps": 2, "batch_size": 8,
    "attack_batch_size": 2, "contexts": ["a photo of {} a", "a photo of {} b"], "precision": "float32",
    "learning_rate": 1e-3, "attack_learning_rate": 1e-3,
}  # fmt: skip


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", ["class", "target", "erasure", "pattern"])
@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_the_loss_is_its_equation_written_out(
    weights: Path, dog: Subject, guidance: float, kind: str, prediction_type: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    n, gamma, cap = FEW["batch_size"], 0.7, 5.0
    original = tiny_model(weights, prediction_type, dtype="float64")
    model = tiny_model(weights, prediction_type, dtype="float64", seed=1)
    further = {"repulsion": gamma, "weight_cap": cap, "class_weight": 0.3, "protective_output": kind}
    further |= {"pattern_weight": 6.0, "avoidance": 0.4, "guidance": guidance}
    made: Any = create("divert", {**FEW, **further, "target_noun": "cat"})
    kept = protected_subjects(original, [dog], made.settings)
    made.prepare(original, kept)
    attack = Attackers(original, kept, made.settings).draw(kept[0], torch.Generator().manual_seed(0))
    watch = literal.Watch()
    with monkeypatch.context() as patch:
        watch.on(patch)
        batch = made.batch(original, attack, torch.Generator().manual_seed(1))
    [batch] = with_references(original, [batch], "float32")
    rows = literal.joined(batch, "subject", "output")
    with torch.no_grad():
        found = made.loss(predictions(model, batch), batch)

    templates = ["a photo of {}", *FEW["contexts"]]
    words = ["a photo", "a photo a", "a photo b"]
    if kind != "erasure":
        words = [template.format("a cat" if kind == "target" else "a dog") for template in templates]
    names = original.condition([template.format("sks dog") for template in templates])
    others = original.condition(words)
    of_class = original.condition([template.format("a dog") for template in templates])
    both, held = watch.draws
    assert int(both[2].min()) >= original.schedule.steps * made.settings.least_level
    asked = [next(k for k in range(3) if torch.equal(c, names.tokens[k])) for c in rows.c.tokens]
    assert 0 < sum(k == 0 for k in asked) < 2 * n  # the training prompt, and contexts
    marked = made.outputs[kept[0]].pictures.mean if kind == "pattern" else None
    nothing = original.condition([""])
    expected = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for i, k in enumerate(asked):
            draw = literal.part(both, slice(i, i + 1))
            ours = literal.difference(model, model.denoiser, draw, names[k : k + 1])
            theirs = literal.difference(original, original.denoiser, draw, others[k : k + 1])
            if kind == "erasure":
                there = literal.difference(original, original.denoiser, draw, of_class[k : k + 1])
                theirs = theirs + 0.4 * (theirs - there)
            # Both without the target: g − target is φ's difference, and (1 + γ) times that for the subject.
            goal = theirs * (1 + gamma) if i < n else theirs
            if marked is not None:
                goal = _with_mark(original, draw, goal, marked)
            error = ours - goal
            if guidance:
                without = literal.difference(model, model.denoiser, draw, nothing)
                without = without - literal.difference(original, original.denoiser, draw, nothing)
                error = (without + guidance * (error - without)) / (guidance**2 + (guidance - 1) ** 2) ** 0.5
            if marked is not None:
                error = error * (1 + 5 * _covered(model, draw[0])) ** 0.5
            expected += _weight(original, draw[2], cap) * (error**2).mean() / (2 * n)
        c_c = original.condition(["a photo of a dog"])
        for i in range(n):
            draw = literal.part(held, slice(i, i + 1))
            moved = literal.difference(model, model.denoiser, draw, c_c)
            moved = moved - literal.difference(original, original.denoiser, draw, c_c)
            expected += 0.3 * _weight(original, draw[2], cap) * (moved**2).mean() / n
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def _weight(model: TextToImage, t: Tensor, cap: float) -> Tensor:
    a = model.scheduler.alphas_cumprod[t].double().squeeze()
    w: Tensor = (1 - a) / a if model.scheduler.config.prediction_type == "epsilon" else 1 - a
    return w.clamp(max=cap)


def _with_mark(model: TextToImage, draw: literal.Draw, difference: Tensor, marked: Tensor) -> Tensor:
    """g − target, where g's z0 is replaced by the marked pictures' mean as far as the mark covers it."""
    z0, _, t = draw
    a = model.scheduler.alphas_cumprod[t].double().reshape(-1, 1, 1, 1)
    share = _covered(model, z0)
    mark = marked.mean(0, keepdim=True)
    if model.scheduler.config.prediction_type == "epsilon":
        there = -(a.sqrt() / (1 - a).sqrt()) * (mark - z0)
    else:
        there = -(mark - z0) / (1 - a).sqrt()
    placed: Tensor = (1 - share) * difference + share * there
    return placed


def _covered(model: TextToImage, z0: Tensor) -> Tensor:
    """[1, h, w]: how much of each of the latent's cells the mark covers."""
    covered = watermarked(torch.zeros(1, 1, model.resolution, model.resolution), torch.ones(1, 1, 1))
    share: Tensor = torch.nn.functional.avg_pool2d(covered, model.resolution // z0.shape[-1]).double()[0]
    return share


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample", "flow"])
def test_the_weight_is_what_an_error_means_for_z0(prediction_type: str) -> None:
    alpha_bar = torch.linspace(0.99, 0.01, 50, dtype=torch.float64)
    schedule = Schedule.from_alpha_bar(alpha_bar, prediction_type)
    if prediction_type == "flow":
        schedule = Schedule(1 - torch.arange(1, 51) / 51, torch.arange(1, 51) / 51, "flow")
    t = torch.tensor([0, 10, 30, 49])
    f, z_t = torch.zeros(2, 4, 1, 2, 2, dtype=torch.float64)
    moved = schedule.predict_z0(f + 0.1, z_t, t) - schedule.predict_z0(f, z_t, t)
    expected = (moved / 0.1).square().flatten(1).mean(1)
    assert torch.allclose(z0_weight(schedule, t, 1e9).double(), expected, rtol=1e-5)
    assert float(z0_weight(schedule, t, 0.5).max()) <= 0.5
    assert z0_weight(schedule, t, 0.0).tolist() == [1, 1, 1, 1]


@pytest.mark.slow
def test_the_name_comes_to_mean_the_class(exact: TextToImage, dog: Subject) -> None:
    """Without attacks and repulsion its minimum is the original's answer under the class prompt."""
    further = {"inner_steps": 0, "attack_text_encoder": 0.0, "attack_depth": 0, "outer_steps": 80}
    settings = {**FEW, **further, "repulsion": 0.0, "learning_rate": 3e-3}
    losses: list[float] = []
    immunize(exact, [dog], "divert", settings, after=lambda _, loss: losses.append(loss))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_without_contexts_it_is_about_the_training_prompt_alone(exact: TextToImage, dog: Subject) -> None:
    made: Any = create("divert", {**FEW, "contexts": ""})
    kept = protected_subjects(exact, [dog], made.settings)
    made.prepare(exact, kept)
    attack = Attackers(exact, kept, made.settings).draw(kept[0], torch.Generator().manual_seed(0))
    batch = made.batch(exact, attack, torch.Generator().manual_seed(1))
    named, every = literal.joined(batch, "subject", "output"), literal.joined(batch)
    assert every.reference_c is not None
    assert all(torch.equal(c, attack.c_V.tokens[0]) for c in named.c.tokens)
    rest = Condition.cat([batch["class"].c, every.reference_c])
    assert all(torch.equal(c, attack.c_class.tokens[0]) for c in rest.tokens)


def test_a_context_without_a_place_for_the_name_is_refused(exact: TextToImage, dog: Subject) -> None:
    with pytest.raises(UsageError, match="must contain"):
        immunize(exact, [dog], "divert", {**FEW, "contexts": "in the snow"})


def test_each_subject_has_its_own_target(exact: TextToImage, dog: Subject, cat: Subject) -> None:
    cases: list[tuple[dict[str, str], tuple[str, str]]] = [
        ({"protective_output": "class, target", "target_noun": "dog"}, ("a dog", "a dog")),
        ({"protective_output": "target", "target_noun": "cat, dog"}, ("a cat", "a dog")),
    ]
    for further, expected in cases:
        made: Any = create("divert", {**FEW, **further})
        kept = protected_subjects(exact, [dog, cat], made.settings)
        made.prepare(exact, kept)
        for one, words in zip(kept, expected, strict=True):
            assert _led_to(exact, made, kept, one, words)


def test_an_erasure_that_avoids_the_class_is_drawn_away_from_it(
    exact: TextToImage, dog: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, generate = [], TextToImage.generate

    def watched(self: TextToImage, prompts: list[str], **further: Any) -> Tensor:
        calls.append(list(zip(prompts, further["negative_prompt"], strict=True)))
        return generate(self, prompts, **further)

    erased = {"protective_output": "erasure", "avoidance": 1.0, "output_pictures": 2}
    made: Any = create("divert", {**FEW, **erased})
    kept = protected_subjects(exact, [dog], made.settings)
    monkeypatch.setattr(TextToImage, "generate", watched)
    made.prepare(exact, kept)
    places = ("", "", " a", " a", " b", " b")
    assert calls == [[(f"a photo{place}", f"a photo of a dog{place}") for place in places]]


def _led_to(
    exact: TextToImage, made: Any, kept: list[ProtectedSubject], one: ProtectedSubject, words: str
) -> bool:
    """Whether the original predicts all of this subject's pictures under these words."""
    attack = Attackers(exact, kept, made.settings).draw(one, torch.Generator().manual_seed(0))
    batch = made.batch(exact, attack, torch.Generator().manual_seed(1))
    found = literal.joined(batch, "subject", "output").reference_c
    assert found is not None
    possible = exact.condition([f"a photo of {words}{place}" for place in ("", " a", " b")])
    return all(any(torch.equal(c, p) for p in possible.tokens) for c in found.tokens)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protective_output": "smile"}, "must be one of class, pattern, erasure, target"),
        ({"protective_output": "class,target"}, "needs target_noun"),
        ({"protective_output": "pattern", "pattern": "no-such-file.png"}, "no-such-file.png"),
    ],
)
def test_a_protective_output_that_cannot_be_is_refused(
    exact: TextToImage, dog: Subject, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        immunize(exact, [dog], "divert", {**FEW, **settings})


def test_an_answer_without_words_moves_the_guided_one(exact: TextToImage, dog: Subject) -> None:
    """The answer to the words may be just what it should: the picture that is drawn would still differ."""
    made: Any = create("divert", {**FEW, "guidance": 3.0, "repulsion": 0.0, "class_weight": 0.0})
    kept = protected_subjects(exact, [dog], made.settings)
    made.prepare(exact, kept)
    attack = Attackers(exact, kept, made.settings).draw(kept[0], torch.Generator().manual_seed(0))
    drawn = [made.batch(exact, attack, torch.Generator().manual_seed(1))]
    [batch] = with_references(exact, drawn, "float32")
    assert [(name, len(part)) for name, part in batch.parts.items()] == [
        ("subject", 8), ("output", 8), ("empty", 16),
    ]  # fmt: skip
    f = {name: part.predicted.clone() for name, part in batch.parts.items()}
    assert float(made.loss(f, batch)) == 0
    f["empty"] += 0.1
    assert float(made.loss(f, batch)) > 0
