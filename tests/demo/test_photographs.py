"""A visitor's own photographs: protected in a folder, and shown on a page of bounded size."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.tiny import write_tiny

import unlikeness.demo.photographs as photographs
from unlikeness.autoencoders import Autoencoder
from unlikeness.cli import main
from unlikeness.demo.closeups import CLOSE, TIMES, WHOLE, compared
from unlikeness.demo.photographs import protect_photographs
from unlikeness.demo.settings import chosen_method
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.files import write_text
from unlikeness.html import Shown
from unlikeness.pictures import open_picture


def test_they_are_protected_and_shown(model: TextToImage, photos: Path, tmp_path: Path) -> None:
    outcome = protect_photographs(photos, tmp_path / "out", model, model_name="tiny", method="noise")
    page = (tmp_path / "out" / "photographs.html").read_text(encoding="utf-8")
    assert (len(outcome.protected), len(outcome.skipped)) == (2, 1)
    assert page.count("<img") == 2 * 11
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
    page = (tmp_path / "out" / "photographs.html").read_text(encoding="utf-8")
    assert "Computed against the distilled autoencoders of FLUX.2 and Sana" in page
    assert (report["recipe"]["method"], report["recipe"]["model"]) == ("rid", None)
    assert 0 < report["lossless"]["linf"] <= 8.001


def test_a_second_run_shows_what_the_first_has_done(model: TextToImage, photos: Path, tmp_path: Path) -> None:
    for _ in range(2):
        outcome = protect_photographs(photos, tmp_path / "out", model, model_name="tiny", method="noise")
    assert len(outcome.before) == 2
    page = (tmp_path / "out" / "photographs.html").read_text(encoding="utf-8")
    assert "2 protected, 2 of them in an earlier run" in page
    assert page.count("<img") == 2 * 11
    assert "<td>a.png</td>" in page


def test_the_page_is_bounded(
    model: TextToImage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "SHOWN", 1)
    monkeypatch.setattr(photographs, "LISTED", 1)
    protect_photographs(photos, tmp_path / "out", model, model_name="toybox", method="noise")
    page = (tmp_path / "out" / "photographs.html").read_text(encoding="utf-8")
    assert page.count("<img") == 11
    assert "The first 1 of 2" in page
    assert "And 1 more" in page
    assert "plain noise" in page


def pixels(shown: Shown) -> np.ndarray:
    """The picture of a page, as integers."""
    png = base64.b64decode(shown.uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def test_a_large_picture_is_shown_small_and_close_where_it_is_flattest_and_most_textured(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(118, 138, (900, 1400, 3))
    picture[500:, 900:] = 128
    picture[:300, :300] = rng.integers(0, 255, (300, 300, 3))
    stripes = picture + 8 * (np.arange(1400) // 2 % 2)[None, :, None]
    for name, content in (("a.png", picture), ("b.png", stripes)):
        Image.fromarray(content.clip(0, 255).astype(np.uint8)).save(tmp_path / name)
    found = compared(tmp_path / "a.png", tmp_path / "b.png", gain=10)
    assert [pixels(one).shape for one in found.whole] == [(round(900 * WHOLE / 1400), WHOLE, 3)] * 3
    flat, textured = found.areas
    assert flat.widths == (CLOSE, CLOSE // TIMES * TIMES)
    assert [pixels(one).shape[:2] for one in flat.close + flat.closer] == [(CLOSE, CLOSE)] * 4
    assert (pixels(flat.close[0]) == 128).all()
    assert set(np.unique(pixels(flat.close[1]))) == {128, 136}
    assert pixels(textured.close[0]).std() > 40
    enlarged = pixels(flat.closer[1])
    assert (enlarged[::TIMES, ::TIMES].repeat(TIMES, 0).repeat(TIMES, 1) == enlarged).all()
    assert "every 4 px" in found.pattern
    assert float(found.pattern.split("has ")[1].split()[0]) > 10


def test_a_small_picture_is_shown_at_its_size(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "a.png")
    found = compared(tmp_path / "a.png", tmp_path / "a.png", gain=10)
    assert [area.widths for area in found.areas] == [(20, 18)] * 2
    assert "No area of the picture is flat enough" in found.pattern


def test_the_page_shows_what_autoencoders_see(model: TextToImage, photos: Path, tmp_path: Path) -> None:
    further: dict[str, Any] = {"model_name": "tiny", "method": "noise", "size": 64}
    seen = {"FLUX.2 (distilled)": model.autoencoder}
    protect_photographs(photos, tmp_path / "out", model, autoencoders=seen, **further)
    page = (tmp_path / "out" / "photographs.html").read_text(encoding="utf-8")
    assert "The protection moves what the encoder of FLUX.2 (distilled) sees" in page
    assert "half size" in page
    report = json.loads((tmp_path / "out" / "photographs.json").read_text())
    assert report["latents"]["autoencoders"][0]["protected"]["JPEG 75"]["n"] == 2
    for folder, given, why in (
        (photos, {}, "There is no distilled autoencoder on this machine"),
        (photos / "a.png", seen, "from two pictures on"),
        (photos, {"broken": broken(model.autoencoder)}, "This could not be measured: the autoencoder"),
    ):
        protect_photographs(folder, tmp_path / why[:4], model, autoencoders=given, **further)
        assert why in (tmp_path / why[:4] / "photographs.html").read_text(encoding="utf-8")


def broken(autoencoder: Autoencoder) -> Autoencoder:
    """With weights that are not finite."""
    copy = autoencoder.copy()
    for weight in copy.network.parameters():
        weight.data.fill_(float("nan"))
    return copy


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
        ["--against", "flux2"],
        ["--photos", str(photos), "--against", "no/such.pth"],
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
