"""A visitor's own photographs: protected in a folder, and shown on a page of bounded size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.tiny import write_tiny

import unlikeness.demo.photographs as photographs
from unlikeness.cli import main
from unlikeness.demo.page import CLOSE, WHOLE, compared
from unlikeness.demo.photographs import protect_photographs
from unlikeness.demo.settings import chosen_method
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.files import write_text
from unlikeness.pictures import open_picture


def test_they_are_protected_and_shown(model: TextToImage, photos: Path, tmp_path: Path) -> None:
    outcome = protect_photographs(photos, tmp_path / "out", model, model_name="tiny", method="noise")
    page = (tmp_path / "out" / "photographs.html").read_text(encoding="utf-8")
    assert (len(outcome.protected), len(outcome.skipped)) == (2, 1)
    assert page.count("<img") == 12
    assert "b &lt;1&gt;.jpg" in page
    assert "b <1>" not in page
    assert "broken.png" in page
    assert "This is plain noise, and no protection" in page
    a, b = (open_picture(folder / "a.png").rgb for folder in (photos, tmp_path / "out" / "protected"))
    assert 0 < np.abs(a - b).max() * 255 <= 8.001
    report = json.loads((tmp_path / "out" / "photographs.json").read_text())
    assert report["lossless"]["linf"] == pytest.approx(8, abs=0.01)
    assert (report["lossy"]["pictures"], report["protected"], report["skipped"]) == (1, 2, 1)


def test_without_a_model_of_your_own_the_shipped_network_does_it_and_with_one_a_gradient(
    model: TextToImage, photos: Path, tmp_path: Path
) -> None:
    assert chosen_method(None, "toybox") == "rid"
    assert chosen_method(None, "my-model") == "advdm"
    assert chosen_method("photoguard", "my-model") == "photoguard"
    with pytest.raises(UsageError, match="rid follows no model, so it would not protect against my-model"):
        chosen_method("rid", "my-model")
    protect_photographs(photos / "a.png", tmp_path / "out", model, model_name="toybox")
    report = json.loads((tmp_path / "out" / "photographs.json").read_text())
    assert "does not protect against Stable Diffusion" in (tmp_path / "out" / "photographs.html").read_text()
    assert (report["recipe"]["method"], report["recipe"]["model"]) == ("rid", None)
    assert 0 < report["lossless"]["linf"] <= 8.001


def test_a_second_run_shows_what_the_first_has_done(model: TextToImage, photos: Path, tmp_path: Path) -> None:
    for _ in range(2):
        outcome = protect_photographs(photos, tmp_path / "out", model, model_name="tiny", method="noise")
    assert len(outcome.before) == 2
    page = (tmp_path / "out" / "photographs.html").read_text(encoding="utf-8")
    assert "2 protected, 2 of them in an earlier run" in page
    assert page.count("<img") == 12
    assert "<td>a.png</td>" in page


def test_the_page_is_bounded(
    model: TextToImage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "SHOWN", 1)
    monkeypatch.setattr(photographs, "LISTED", 1)
    protect_photographs(photos, tmp_path / "out", model, model_name="toybox", method="noise")
    page = (tmp_path / "out" / "photographs.html").read_text(encoding="utf-8")
    assert page.count("<img") == 6
    assert "The first 1 of 2" in page
    assert "And 1 more" in page
    assert "plain noise" in page


def test_a_large_picture_is_shown_small_and_close_where_it_changed_most(tmp_path: Path) -> None:
    grey = np.full((900, 1400, 3), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    grey[700:720, 1200:1220] += 8
    Image.fromarray(grey).save(tmp_path / "b.png")
    views = compared(tmp_path / "a.png", tmp_path / "b.png", gain=10)
    assert {view.size for view in views[:3]} == {(WHOLE, round(900 * WHOLE / 1400))}
    assert {view.size for view in views[3:]} == {(CLOSE, CLOSE)}
    close = np.asarray(views[5]).astype(int)
    assert (close == 208).sum() == 20 * 20 * 3  # 127.5 + 10 * 8
    assert ((close == 208) | (close == 128)).all()


def test_a_name_in_another_encoding_does_not_stop_a_page(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "<p>caf\udce9.jpg</p>", errors="replace")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "<p>caf?.jpg</p>"


def test_the_command(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = str(write_tiny(tmp_path / "tiny"))
    output = tmp_path / "out"
    options = ["--model", tiny, "--steps", "1", "--output", str(output), "--device", "cpu", "-q"]
    assert main(["demo", "--photos", str(photos / "a.png"), *options]) == 0
    assert f"the report is {output / 'photographs.html'}" in capsys.readouterr().out
    assert main(["demo", "--photos", str(photos), *options]) == 1  # one file is broken
    assert "skipped broken.png" in capsys.readouterr().err
    for wrong in (
        ["--photos", str(tmp_path / "none")],
        ["--model", tiny],
        ["--class-noun", "horse"],
        ["--photos", str(photos), "--class-noun", "dog"],
        ["--photos", str(photos), "--model", tiny, "--method", "rid"],
        ["--photos", str(photos), "--no-noise"],
    ):
        assert main(["demo", *wrong, "-o", str(tmp_path / "new"), "-q"]) in (1, 2)
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_page_says_when_nothing_was_protected(model: TextToImage, photos: Path, tmp_path: Path) -> None:
    further: dict[str, Any] = {"model_name": "tiny", "method": "advdm", "steps": 1}
    for _ in range(2):
        protect_photographs(photos / "a.png", tmp_path / "small", model, budget=0.5, **further)
        page = (tmp_path / "small" / "photographs.html").read_text(encoding="utf-8")
        assert "Nothing was protected" in page
        assert "0 protected;\n1 unchanged; 0 skipped" in page
        assert "this is a copy" in page
    with pytest.raises(UsageError, match="budget must be more than 0"):
        protect_photographs(photos, tmp_path / "zero", model, budget=0, **further)
    protect_photographs(photos / "broken.png", tmp_path / "none", model, **further)
    assert "Nothing was protected" in (tmp_path / "none" / "photographs.html").read_text(encoding="utf-8")
    protect_photographs(photos, tmp_path / "real", model, **further)
    assert "Computed against tiny" in (tmp_path / "real" / "photographs.html").read_text(encoding="utf-8")


def test_somebodys_own_page_is_not_written_over(model: TextToImage, photos: Path, tmp_path: Path) -> None:
    for name in ("photographs.html", "photographs.json"):
        output = tmp_path / name.replace(".", "-")
        output.mkdir()
        (output / name).write_text("[]")
        with pytest.raises(UsageError, match="no earlier demo has made it"):
            protect_photographs(photos, output, model, model_name="tiny", method="noise")
        assert [file.name for file in output.iterdir()] == [name]


def test_what_a_demo_has_made_is_nobodys_photograph(model: TextToImage, photos: Path, tmp_path: Path) -> None:
    output = photos / "demo"
    (output / "story").mkdir(parents=True)
    (output / "story" / "robot.png").write_bytes((photos / "a.png").read_bytes())
    outcome = protect_photographs(photos, output, model, model_name="tiny", method="noise")
    assert sorted(entry.path for entry in outcome.protected) == ["a.png", "trip/b <1>.jpg"]
