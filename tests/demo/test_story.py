"""The story from end to end on a tiny random model: one page, honest figures, and nothing done twice."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unlikeness.demo.settings import DemoSettings
from unlikeness.demo.story import Evaluator, run
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.personalize import personalize
from unlikeness.progress import Silent

SETTINGS = DemoSettings(
    steps=2,
    batch_size=1,
    class_images=2,
    generated=2,
    elsewhere=1,
    pictures=2,
    method="photoguard",
    class_noun="mug",
)


def test_the_story_is_told_in_one_file_with_its_figures(
    model: TextToImage, evaluator: Evaluator, tmp_path: Path
) -> None:
    said: list[str] = []
    record = run(model, evaluator, tmp_path, SETTINGS, say=said.append)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]{30})', page))
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert page.count("<img") >= 20
    assert record == json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    acts = record["acts"]
    assert list(acts) == ["before", "clean", "protected", "noise"]
    assert acts["protected"]["linf"] <= 8.001
    assert acts["noise"]["linf"] == pytest.approx(8, abs=1e-3)
    assert "linf" not in acts["clean"]
    for act in ("clean", "protected", "noise"):
        assert f"{acts[act]['loss']:.4f}" in page
        assert f"{acts[act]['s']['value']:.2f}" in page
    assert record["settings"]["budget"] == 8
    assert record["dreambooth"]["seed"] == 0
    assert [text.split(" ")[0] for text in said] == [f"{i}/6" for i in range(1, 7)]
    assert sorted(f.name for f in (tmp_path / "story" / "pictures").iterdir()) == [
        "mug-0-1.png",
        "mug-0-2.png",
    ]
    manifest = (tmp_path / "story" / "protected" / "manifest.jsonl").read_text()
    assert len(manifest.splitlines()) == 2
    assert str(tmp_path) not in manifest
    assert not (tmp_path / "protected").exists()  # where the visitor's own photographs go


def test_by_default_a_network_protects_and_the_page_shows_its_change_beside_noise(
    model: TextToImage, evaluator: Evaluator, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, method=DemoSettings().method)
    record = run(model, evaluator, tmp_path, settings)
    assert record["settings"]["method"] == "rid"
    assert record["protection"]["weights"] == "rid-toybox"
    lines = (tmp_path / "story" / "protected" / "manifest.jsonl").read_text().splitlines()
    recipes = [json.loads(line)["recipe"] for line in lines]
    assert [(r["model"], r["fingerprint"]) for r in recipes] == [(None, record["protection_fingerprint"])] * 2
    page = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    assert "a small network computes them at once" in page
    assert "trained against the very generator that the attacker used" in page
    assert page.count("<figcaption>the difference, 10 times as strong") == 2
    assert page.count("<figcaption>the noise, 10 times as strong") == 1
    run(model, evaluator, tmp_path, replace(settings, noise=False))
    assert "plain noise" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_act_has_the_same_training_but_for_the_pictures(
    model: TextToImage, evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def spy(model: TextToImage, subject: Any, method: str, settings: Any, **rest: Any) -> TextToImage:
        calls.append((subject.digest, method, settings, rest["prior"].mean.sum().item()))
        return personalize(model, subject, method, settings, **rest)

    monkeypatch.setattr("unlikeness.demo.story.personalize", spy)
    run(model, evaluator, tmp_path, SETTINGS)
    assert len(calls) == 3
    assert len({call[0] for call in calls}) == 3
    assert calls[0][1:] == calls[1][1:] == calls[2][1:]


@pytest.mark.slow
def test_a_second_run_takes_what_is_there_and_other_settings_only_what_they_change(
    model: TextToImage, evaluator: Evaluator, tmp_path: Path
) -> None:
    run(model, evaluator, tmp_path, SETTINGS)

    def kept() -> dict[Path, int]:
        return {f: f.stat().st_mtime_ns for f in (tmp_path / "work").iterdir()}

    first, page = kept(), (tmp_path / "report.html").read_bytes()
    assert len(first) == 5
    run(model, evaluator, tmp_path, SETTINGS)
    assert kept() == first
    assert (tmp_path / "report.html").read_bytes() == page
    run(model, evaluator, tmp_path, replace(SETTINGS, budget=4.0, noise=False))
    new = [file.name.split("-")[0] for file in kept().keys() - first.keys()]
    assert new == ["protected"]
    other = model.copy()
    with torch.no_grad():
        next(other.denoiser.parameters()).add_(0.01)
    run(other, evaluator, tmp_path, replace(SETTINGS, noise=False))
    assert len(kept()) == 6 + 4  # other weights: everything anew


@pytest.mark.slow
def test_a_run_that_stops_in_a_training_goes_on_there(
    model: TextToImage, evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, steps=4)
    run(model, evaluator, tmp_path / "whole", settings)
    monkeypatch.setattr("unlikeness.training.PAUSE", 0)  # as if every step took half a minute
    steps = []

    class Stops(Silent):
        def __init__(self, at: int) -> None:
            self.at, self.name = at, ""

        def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
            self.name = description

        def advance(self, n: int = 1, **figures: float) -> None:
            if self.name == "DreamBooth":
                steps.append(n)
                if len(steps) == self.at:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # after two steps of the second training
        run(model, evaluator, tmp_path / "stopped", settings, progress=Stops(6))
    run(model, evaluator, tmp_path / "stopped", settings, progress=Stops(-1))
    assert len(steps) < 3 * 4 + 2  # it was not started again from its beginning
    for page in ("report.html", "report.json"):
        assert (tmp_path / "stopped" / page).read_bytes() == (tmp_path / "whole" / page).read_bytes()
    assert not list((tmp_path / "stopped" / "work").glob("*.training"))


def test_wrong_settings_are_told_before_anything_is_done(
    model: TextToImage, evaluator: Evaluator, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="robot, backpack, mug"):
        DemoSettings(class_noun="horse")
    with pytest.raises(UsageError, match="did you mean advdm"):
        run(model, evaluator, tmp_path / "demo", replace(SETTINGS, method="advmd"))
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_dreambooth_learns_the_subject_on_the_toybox_and_protection_raises_the_loss(tmp_path: Path) -> None:
    from unlikeness.toybox.evaluators import load_identity

    toybox = TextToImage.from_pretrained("toybox", dtype="float32")
    few = DemoSettings(noise=False, steps=150, batch_size=2, class_images=16, generated=6, elsewhere=1)
    record = run(toybox, Evaluator(load_identity()), tmp_path, few)
    acts = record["acts"]
    assert acts["before"]["s"]["value"] < 0.3 < acts["clean"]["s"]["value"]
    assert acts["protected"]["loss"] > 1.1 * acts["clean"]["loss"]
    assert acts["protected"]["linf"] <= 8.001
