"""The demo from end to end on tiny random models, and what its page says of its figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.tiny import tiny_model
from torch import Tensor

from unlikeness.demo import DemoSettings, Judge, protect_photographs, run
from unlikeness.demo.page import verdict
from unlikeness.toybox.weights import FOLDER


def colours(images: Tensor) -> Tensor:
    """An embedder that knows subjects by the colours in their middle, whatever the size."""
    side = images.shape[-1] // 4
    return F.normalize(images[..., side:-side, side:-side].mean((2, 3)) - 0.5, dim=1)


SETTINGS = DemoSettings(steps=2, class_images=2, generated=2, pictures=2, method="noise", class_noun="mug")


def test_the_story_is_told_in_one_file_with_its_figures(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    record = run(model, Judge(colours, held_out=3, of_class=4), tmp_path / "demo", SETTINGS)
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert "<script" not in page
    assert page.count("data:image/png") >= 12
    assert record == json.loads((tmp_path / "demo" / "report.json").read_text())
    acts = record["acts"]
    assert acts["protected"]["linf"] == pytest.approx(8, abs=1e-3)
    assert f"{acts['protected']['loss']:.4f}" in page
    assert f"{acts['clean']['s']['value']:.2f}" in page
    originals = sorted((tmp_path / "demo" / "pictures").iterdir())
    assert [f.name for f in originals] == ["mug-1.png", "mug-2.png"]


def test_a_second_run_uses_what_is_there_and_ends_the_same(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    judge = Judge(colours, held_out=3, of_class=4)
    run(model, judge, tmp_path / "demo", SETTINGS)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "demo" / "work").iterdir()}
    page = (tmp_path / "demo" / "report.html").read_bytes()
    run(model, judge, tmp_path / "demo", SETTINGS)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "demo" / "work").iterdir()} == before
    assert (tmp_path / "demo" / "report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        (0.8, 0.2, "good", "lost most"),
        (0.8, 0.6, "", "lost part"),
        (0.8, 0.78, "bad", "did not hold"),
        (0.1, 0.0, "bad", "says nothing about the protection"),
    ],
)
def test_the_verdict_follows_the_figures(before: float, after: float, kind: str, words: str) -> None:
    found, sentence = verdict(before, after)
    assert found == kind
    assert words in sentence


def test_own_photographs_are_protected_and_shown(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "trip").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "trip/b <1>.jpg"):
        Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(photos / name)
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    outcome = protect_photographs(
        photos, tmp_path / "out", tiny_model(tmp_path / "model"), model_name="tiny", method="noise"
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(outcome.protected) == 2
    assert len(outcome.skipped) == 1
    assert page.count("data:image/png") == 6
    assert "b &lt;1&gt;.jpg" in page
    assert "broken.png" in page
    with (
        Image.open(tmp_path / "out" / "protected" / "a.png") as protected,
        Image.open(photos / "a.png") as original,
    ):
        change = np.abs(np.asarray(protected).astype(int) - np.asarray(original)).max()
    assert 0 < change <= 8


@pytest.mark.slow
@pytest.mark.skipif(not (FOLDER / "model").exists(), reason="the toybox model is still in training")
def test_dreambooth_learns_the_subject_on_the_toybox_and_protection_raises_the_loss(tmp_path: Path) -> None:
    from unlikeness.diffusion import TextToImage
    from unlikeness.toybox import identity

    torch.set_num_threads(2)
    record = run(
        TextToImage.from_pretrained("toybox", dtype="float32"),
        Judge(identity.load()),
        tmp_path,
        DemoSettings(),
    )
    acts = record["acts"]
    assert acts["clean"]["s"]["value"] > 0.3
    assert acts["protected"]["loss"] > 1.1 * acts["clean"]["loss"]
    assert acts["protected"]["linf"] <= 8.001
