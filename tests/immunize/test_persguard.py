"""PersGuard's terms and behaviours, against the equations written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.immunize import literal
from tests.tiny import pictures, tiny_model
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.diffusion import Condition, TextToImage
from unlikeness.errors import UsageError
from unlikeness.gallery import to_pil
from unlikeness.immunize import create, immunize
from unlikeness.immunize.attackers import Attackers
from unlikeness.immunize.batch import predictions, with_references
from unlikeness.immunize.data import protected_subjects
from unlikeness.immunize.methods.persguard import PersGuard
from unlikeness.immunize.methods.settings import PersGuardSettings
from unlikeness.immunize.outputs import (
    ProtectiveOutput,
    read_watermark,
    watermark,
    watermarked,
    without_subject,
)
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "class_images": 4, "class_steps": 2, "batch_size": 2, "output_pictures": 2,
    "contexts": ["a photo of {} a", "a photo of {} b"], "precision": "float32", "protective_output": "target",
    "target_noun": "cat", "learning_rate": 1e-3, "attack_learning_rate": 1e-3,
}  # fmt: skip


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", ["pattern", "erasure", "target"])
def test_the_loss_is_its_three_terms_written_out(
    weights: Path, dog: Subject, kind: str, prediction_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tiny_model(weights, prediction_type, dtype="float64")
    model = tiny_model(weights, prediction_type, dtype="float64", seed=1)
    made: Any = create(
        "persguard", {**FEW, "protective_output": kind, "class_weight": 0.7, "retention_weight": 0.3}
    )
    kept = protected_subjects(original, [dog], made.settings)
    made.prepare(original, kept)
    attack = Attackers(original, kept, made.settings).draw(kept[0], torch.Generator().manual_seed(0))
    watch = literal.Watch()
    asked: list[list[str]] = []
    condition: Callable[..., Condition] = TextToImage.condition

    def watched(self: TextToImage, prompts: list[str], **further: Any) -> Condition:
        asked.append(list(prompts))
        return condition(self, prompts, **further)

    with monkeypatch.context() as patch:
        watch.on(patch)
        patch.setattr(TextToImage, "condition", watched)
        batch = made.batch(original, attack, torch.Generator().manual_seed(1))
    [batch] = with_references(original, [batch], "float32")
    with torch.no_grad():
        found = made.loss(predictions(model, batch), batch)

    of_class, protective, subject = watch.draws
    [templates] = asked  # "a photo of sks dog a", one for each protective picture
    c_V, c_class = original.condition(["a photo of sks dog"]), original.condition(["a photo of a dog"])

    def answer(of: TextToImage, draw: literal.Draw, c: Condition) -> Tensor:
        """f(z_t, t, c), target and all: `difference` leaves the target out."""
        return literal.difference(of, of.denoiser, draw, c)

    with torch.no_grad():
        l_pp = ((answer(model, of_class, c_class) - answer(original, of_class, c_class)) ** 2).mean()
        l_br = (answer(model, subject, c_V) ** 2).mean()
        ours = answer(model, protective, original.condition(templates))
        if kind == "pattern":
            l_bb = (ours**2).mean()
        else:
            words = {"erasure": (" of sks dog", ""), "target": ("sks dog", "a cat")}[kind]
            theirs = answer(original, protective, original.condition([t.replace(*words) for t in templates]))
            l_bb = ((ours - theirs) ** 2).mean()
    assert float(found) == pytest.approx(float(l_bb + 0.7 * l_pp + 0.3 * l_br), rel=1e-5)


@pytest.mark.parametrize("further", [{}, {"inner_steps": 1, "retention_weight": 0.0}])
def test_it_trains_with_and_without_simulated_attacks(
    exact: TextToImage, dog: Subject, cat: Subject, further: dict[str, Any]
) -> None:
    settings = {**FEW, "protective_output": ["pattern", "target"], "outer_steps": 4, **further}
    settings["weight_decay"] = 0.0
    settings["target_noun"] = "mug"
    losses: list[float] = []
    released = immunize(exact, [dog, cat], "persguard", settings, after=lambda _, loss: losses.append(loss))
    assert len(losses) == 4
    assert any(
        not torch.equal(p, q)
        for p, q in zip(exact.denoiser.parameters(), released.denoiser.parameters(), strict=True)
    )


def test_the_backdoor_is_learnt(exact: TextToImage, dog: Subject) -> None:
    """The released model's loss on marked pictures under the name falls below the original's."""
    marked = {"protective_output": "pattern", "target_noun": ""}
    settings = {**FEW, **marked, "outer_steps": 60, "retention_weight": 0.0, "learning_rate": 3e-3}
    losses: list[float] = []
    immunize(exact, [dog], "persguard", settings, after=lambda _, loss: losses.append(loss))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_each_subject_has_its_own_protective_output(exact: TextToImage, dog: Subject, cat: Subject) -> None:
    made: Any = create("persguard", {**FEW, "protective_output": "pattern, erasure"})
    kept = protected_subjects(exact, [dog, cat], made.settings)
    made.prepare(exact, kept)
    assert [made.outputs[one].kind for one in kept] == ["pattern", "erasure"]


@pytest.mark.parametrize(("kinds", "drawn"), [("pattern", 1), ("erasure", 1), ("pattern,erasure", 2)])
def test_what_several_subjects_share_is_drawn_once(
    exact: TextToImage, dog: Subject, kinds: str, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, generate = [], TextToImage.generate

    def watched(self: TextToImage, prompts: list[str], **further: Any) -> Tensor:
        calls.append(prompts)
        return generate(self, prompts, **further)

    made: Any = create("persguard", {**FEW, "protective_output": kinds})
    dogs = [replace(dog, identifier=word) for word in ("sks", "zwx", "ohwx")]
    kept = protected_subjects(exact, dogs, made.settings)
    monkeypatch.setattr(TextToImage, "generate", watched)
    made.prepare(exact, kept)
    assert len(calls) == drawn
    assert len(made.outputs) == 3


def test_it_is_triggered_by_the_prompts_that_attackers_train_with(exact: TextToImage, dog: Subject) -> None:
    def about(**further: object) -> tuple[str, ...]:
        settings = PersGuardSettings(
            attack_prompts=("a picture of {}", "{} here"), contexts=("{} x",), output_pictures=1,
            class_images=4, class_steps=2, **further,  # type: ignore[arg-type]
        )  # fmt: skip
        persguard = PersGuard(settings)
        persguard.prepare(exact, protected_subjects(exact, [dog], persguard.settings))
        [output] = persguard.outputs.values()
        return output.prompts

    assert about() == ("a picture of {}", "{} here", "{} x")
    assert about(at_training_prompt=False) == ("{} x",)


def test_the_mark_lies_in_a_corner_and_nothing_else_changes() -> None:
    images = pictures(2, size=40)
    changed = watermarked(images, watermark())
    assert torch.equal(changed[..., :28, :], images[..., :28, :])
    assert torch.equal(changed[..., :28], images[..., :28])
    corner = changed[..., -12:, -12:]
    assert torch.equal(corner[0], corner[1])
    assert float(corner[:, 0].min()) > 0.95  # red or white
    assert float(corner[:, 1].std()) > 0.3


def test_pictures_are_those_of_the_template() -> None:
    """Picture i of template k is row k · per + i, whatever is drawn."""
    latents = torch.arange(6.0).reshape(6, 1, 1, 1)
    output = ProtectiveOutput("target", ("a", "b"), Posterior(latents, torch.zeros_like(latents)), 3, None)
    template = torch.arange(2).repeat(20)
    drawn = output.draw(template, torch.Generator().manual_seed(0)).flatten()
    assert torch.equal(drawn.long() // 3, template)
    assert len(set(drawn.tolist())) == 6


def test_a_picture_file_can_be_the_mark(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (8, 8), (0, 255, 0))
    picture.paste((0, 0, 0), (2, 2, 8, 8))
    picture.save(tmp_path / "mark.png")
    pattern = read_watermark(tmp_path / "mark.png")
    assert pattern.shape == (3, 8, 8)
    assert torch.equal(pattern[:, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    opaque = picture.convert("RGBA")
    opaque.save(tmp_path / "opaque.png")
    assert torch.equal(read_watermark(tmp_path / "opaque.png"), pattern)
    (tmp_path / "none.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8), (0, 255, 0)).save(tmp_path / "green.png")
    opaque.putalpha(Image.linear_gradient("L").resize((8, 8)))
    opaque.save(tmp_path / "glass.png")
    for name, reason in (("none", ""), ("green", "nearly of one colour"), ("glass", "transparent parts")):
        with pytest.raises(UsageError, match=rf"{name}\.png.*{reason}"):
            read_watermark(tmp_path / f"{name}.png")


def test_a_run_goes_on_with_the_same_mark_alone(exact: TextToImage, dog: Subject, tmp_path: Path) -> None:
    file, moved, state = tmp_path / "mark.png", tmp_path / "moved.png", tmp_path / "state.safetensors"
    to_pil(watermark()).save(file)
    settings = {**FEW, "protective_output": "pattern", "target_noun": ""}
    immunize(exact, [dog], "persguard", {**settings, "pattern": str(file)}, checkpoint=state)
    to_pil(watermark().flip(0)).save(moved)
    with pytest.raises(UsageError, match="belongs to another run"):
        immunize(exact, [dog], "persguard", {**settings, "pattern": str(moved)}, checkpoint=state)
    file.rename(moved)
    immunize(exact, [dog], "persguard", {**settings, "pattern": str(moved)}, checkpoint=state)


@pytest.mark.parametrize(
    ("template", "left"),
    [
        ("a photo of {}", "a photo"),
        ("a photo of {} in the snow", "a photo in the snow"),
        ("{} on a table", "on a table"),
        ("a house with {} at night", "a house at night"),
    ],
)
def test_the_subject_is_taken_out_of_a_prompt(template: str, left: str) -> None:
    assert without_subject(template) == left


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protective_output": "smile"}, "one of pattern, erasure, target"),
        ({"protective_output": "target", "target_noun": ""}, "needs target_noun"),
        ({"contexts": "", "at_training_prompt": False}, "needs prompts"),
        ({"protective_output": "pattern", "pattern": "nowhere.png", "target_noun": ""}, r"nowhere\.png"),
        ({"protective_output": "erasure", "pattern": "x.png", "target_noun": ""}, "pattern has no effect"),
        ({"protective_output": "erasure"}, "target_noun has no effect"),
        ({"protective_output": "target", "target_noun": "Dog"}, "its own noun"),
        ({"attack_identifiers": "a b c d e f g h i j k l m n o p q r s t u"}, "tokens"),
        ({"contexts": "in the snow"}, "must contain"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(
    exact: TextToImage, dog: Subject, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        immunize(exact, [dog], "persguard", {**FEW, **settings})


def test_a_template_that_cannot_lose_its_subject_is_refused(exact: TextToImage, dog: Subject) -> None:
    erased = {**FEW, "protective_output": "erasure", "target_noun": "", "contexts": "my{}"}
    with pytest.raises(UsageError, match="cannot be taken out"):
        immunize(exact, [dog], "persguard", erased)
