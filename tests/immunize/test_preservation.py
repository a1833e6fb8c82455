"""What is preserved at the released weights, against the equation written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.immunize import literal
from tests.tiny import tiny_model

from unlikeness.diffusion import Condition, TextToImage
from unlikeness.errors import UsageError
from unlikeness.immunize import create, immunize
from unlikeness.immunize.data import draw_general, protected_subjects
from unlikeness.immunize.preservation import Preservation, class_pictures
from unlikeness.subjects import Subject

ALL_OF_THE_CLASS = {"preserve_class": 1.0, "outer_steps": 1, "inner_steps": 0}
PROMPTS = ["a cup", "a house", "a tree"]
FEW: dict[str, Any] = {"class_images": 4, "class_steps": 2, "preserve_batch_size": 6, "preserve_weight": 1.0}


@pytest.mark.parametrize(
    ("cap", "share", "empty"),
    [
        (0.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 1.0, 0.0), (3.0, 0.0, 0.0), (3.0, 0.5, 0.0), (3.0, 0.5, 0.5),
        (0.0, 1.0, 1.0),
    ],
)  # fmt: skip
def test_the_term_is_its_equation_written_out(
    exact: TextToImage, dog: Subject, cat: Subject, weights: Any, cap: float, share: float, empty: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    further = {"preserve_cap": cap, "preserve_class": share, "preserve_empty": empty}
    settings = create("apdm", {**FEW, **further}).settings
    kept = protected_subjects(exact, [dog, cat], settings)
    general = draw_general(exact, PROMPTS, seed=0, steps=2)
    model = exact.copy()
    model.denoiser.load_state_dict(tiny_model(weights, dtype="float64", seed=1).denoiser.state_dict())
    preserve = Preservation(general, PROMPTS, settings, kept, "float32")
    watch, asked = literal.Watch(), []
    condition = TextToImage.condition

    def watched(self: TextToImage, prompts: list[str | None], **further: Any) -> Condition:
        asked.append(list(prompts))
        return condition(self, prompts, **further)

    with monkeypatch.context() as patch:
        watch.on(patch)
        patch.setattr(TextToImage, "condition", watched)
        found = preserve(model, exact, torch.Generator().manual_seed(0))
    [prompts], [draw] = asked, watch.draws
    assert len(prompts) == 6
    if empty:
        assert 0 < prompts.count(None) <= 6
        assert empty < 1 or set(prompts) == {None}
    else:
        of_class = [prompt for prompt in prompts if prompt not in PROMPTS]
        assert len(of_class) == 6 * share
        assert len(set(of_class)) == (share > 0)
        assert set(of_class) <= {"a photo of a dog", "a photo of a cat"}
    expected = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for i, prompt in enumerate(prompts):
            one, c = literal.part(draw, slice(i, i + 1)), exact.condition([prompt])
            moved = literal.difference(model, model.denoiser, one, c)
            moved = moved - literal.difference(exact, exact.denoiser, one, c)
            a = exact.scheduler.alphas_cumprod[one[2]].double().squeeze()
            w = ((1 - a) / a).clamp(1, cap) if cap else 1.0
            expected += w * (moved**2).mean() / 6
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_prompt_without_its_picture_is_refused(exact: TextToImage, dog: Subject) -> None:
    settings = create("apdm", FEW).settings
    general = draw_general(exact, PROMPTS, seed=0, steps=2)
    with pytest.raises(UsageError, match="one for each"):
        Preservation(general, PROMPTS[:2], settings, protected_subjects(exact, [dog], settings), "float32")


def test_of_many_pictures_that_share_is_asked_about_without_words(
    exact: TextToImage, dog: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str | None]] = []
    condition = TextToImage.condition

    def watched(self: TextToImage, prompts: list[str | None], **further: Any) -> Condition:
        asked.append(list(prompts))
        return condition(self, prompts, **further)

    settings = create("apdm", {**FEW, "preserve_batch_size": 200, "preserve_empty": 0.3}).settings
    kept, general = protected_subjects(exact, [dog], settings), draw_general(exact, PROMPTS, seed=0, steps=2)
    monkeypatch.setattr(TextToImage, "condition", watched)
    Preservation(general, PROMPTS, settings, kept, "float32")(exact, exact, torch.Generator().manual_seed(0))
    assert 40 <= asked[0].count(None) <= 80
    assert set(asked[0]) == {None, *PROMPTS}


def test_without_prompts_the_class_alone_is_kept(exact: TextToImage, dog: Subject) -> None:
    settings = {**FEW, "inner_steps": 0, "outer_steps": 1, "preserve_class": 0.5}
    immunize(exact, [dog], "apdm", settings)
    with pytest.raises(UsageError, match="needs prompts"):
        immunize(exact, [dog], "apdm", {**settings, "preserve_class": 0.0})
    made = create("apdm", settings).settings
    preserve = Preservation(None, [], made, protected_subjects(exact, [dog], made), "float32")
    assert float(preserve(exact, exact, torch.Generator().manual_seed(0))) == pytest.approx(0, abs=1e-12)


def test_the_step_size_falls_to_zero_at_the_end(exact: TextToImage, dog: Subject) -> None:
    """With all steps in the fall, what moves is about half of what constant steps move."""

    def moved(fall: float) -> float:
        settings = {**FEW, "preserve_weight": 0.0, "inner_steps": 0, "outer_steps": 8, "fall": fall}
        released = immunize(exact, [dog], "adversarial", {**settings, "learning_rate": 1e-4})
        pairs = zip(released.denoiser.parameters(), exact.denoiser.parameters(), strict=True)
        return max(float((p - q).abs().max()) for p, q in pairs)

    assert moved(1.0) == pytest.approx(moved(0.0) * 4.5 / 8, rel=0.1)


def test_pictures_that_would_not_be_used_are_not_drawn(
    exact: TextToImage, dog: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("unlikeness.immunize.run.draw_general", lambda *given, **_: drawn.append(given))
    immunize(exact, [dog], "apdm", {**FEW, **ALL_OF_THE_CLASS}, prompts=PROMPTS)
    assert drawn == []


@pytest.mark.parametrize(
    ("share", "batch", "expected"), [(0.0, 4, 0), (0.1, 4, 1), (0.5, 1, 1), (0.5, 8, 4), (1.0, 3, 3)]
)
def test_a_share_class_pictures_is_never_none(share: float, batch: int, expected: int) -> None:
    settings = create("apdm", {**FEW, "preserve_class": share, "preserve_batch_size": batch}).settings
    assert class_pictures(settings) == expected
