"""The folder job: nothing lost, nothing touched, and honest about every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.protect.folders import GOOD, contents, lines, run
from tests.protect.test_tiles import write

from unlikeness.diffusion import TextToImage
from unlikeness.pictures import open_picture
from unlikeness.protect.files.manifest import NAME
from unlikeness.protect.files.survey import survey
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.methods.noise import Noise, NoiseSettings


def test_the_tree_is_mirrored_and_every_file_accounted_for(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    before = contents(photos)
    output = tmp_path / "out"
    outcome = run(photos, output, noise)
    assert contents(photos) == before
    assert sorted(contents(output)) == sorted([*GOOD, NAME])
    assert [entry.path for entry in outcome.protected] == GOOD
    assert [entry.path for entry in outcome.skipped] == ["broken.jpg", "not.png"]
    told = {line["path"]: line for line in lines(output)}
    assert list(told) == ["a.png", "b.jpg", "broken.jpg", "not.png", "z.webp", "deep/a.png", "deep/er/c.bmp"]
    for name in GOOD:
        line, original, saved = told[name], open_picture(photos / name), open_picture(output / name)
        assert line["status"] == "protected"
        assert (line["width"], line["height"]) == original.size == saved.size
        assert original.format == saved.format
        assert line["bytes_in"] == (photos / name).stat().st_size
        assert line["bytes_out"] == (output / name).stat().st_size
        worst = float(abs(saved.rgb - original.rgb).max() * 255)
        assert line["linf"] == pytest.approx(worst, abs=1e-3)
        if line["lossless"]:
            assert 2 < worst <= 4.001
        assert line["psnr"] > 25
        assert 0.5 < line["ssim"] < 1
        assert line["recipe"]["settings"]["budget"] == 4
        assert line["recipe"]["seed"] == 0
    assert told["not.png"]["status"] == "skipped"
    assert told["not.png"]["reason"].startswith("not.png: it is no JPEG")
    assert str(tmp_path) not in (output / NAME).read_text()


def test_a_copy_that_could_not_be_changed_is_called_one(tmp_path: Path, model: TextToImage) -> None:
    source = write(tmp_path / "a.png", 40, 40)
    (entry,) = run(source, tmp_path / "out", Noise(model, NoiseSettings(budget=0.5))).unchanged
    assert (entry.status, entry.linf) == ("unchanged", 0)
    assert str(entry.note).startswith("nothing was changed")
    assert (tmp_path / "out" / "a.png").read_bytes() == source.read_bytes()


def test_only_the_first_files_are_done_at_their_own_places(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    (photos / "z.webp").unlink()
    outcome = run(photos, tmp_path / "out", noise, limit=5)
    assert [e.path for e in outcome.protected] == ["a.png", "b.jpg", "deep/a.png"]
    assert len(outcome.skipped) == 2


def test_progress_counts_every_picture_and_tells_the_steps(
    photos: Path, tmp_path: Path, model: TextToImage
) -> None:
    class Recorder:
        total: int | None = None
        done = 0
        steps = 0
        closed = False

        def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
            self.total = total

        def advance(self, n: int = 1, **figures: float) -> None:
            self.done += n
            self.steps += "step" in figures

        def close(self) -> None:
            self.closed = True

    seen = Recorder()
    run(photos, tmp_path / "out", AdvDM(model, AdvDMSettings(steps=2)), progress=seen)
    assert seen.done == seen.total == len(GOOD) + 2
    assert seen.steps >= 2
    assert seen.closed


def test_a_survey_tells_what_a_run_would_do_and_writes_nothing(
    photos: Path, tmp_path: Path, model: TextToImage
) -> None:
    output = tmp_path / "out"
    made: list[AdvDMSettings] = []

    def make(settings: Any) -> AdvDM:
        made.append(settings)
        return AdvDM(model, settings)

    seen = survey([photos], output, make, AdvDMSettings(steps=50))
    assert not output.exists()
    told = {file.name: file for file in seen.files}
    assert sorted(name for name, file in told.items() if file.size) == sorted(GOOD)
    assert told["a.png"].size == (90, 64)
    assert told["a.png"].tiles == 3
    assert told["b.jpg"].tiles == 1
    assert "no JPEG" in str(told["not.png"].reason)
    assert seen.tiles == sum(file.tiles for file in seen.files)
    assert seen.seconds > 0
    assert {settings.steps for settings in made} == {50, 2}


def test_colour_depth_and_orientation_survive_with_the_budget_kept(tmp_path: Path, noise: Noise) -> None:
    source = tmp_path / "turned.png"
    image = Image.open(write(tmp_path / "x.png", 60, 40)).convert("RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(source, exif=exif)
    (entry,) = run(source, tmp_path / "out", noise).protected
    assert (entry.width, entry.height) == (40, 60)
    assert entry.linf is not None
    assert 2 < entry.linf <= 4.001
    saved = Image.open(tmp_path / "out" / "turned.png")
    assert (saved.size, saved.mode, saved.getexif()[0x0112]) == ((60, 40), "RGBA", 6)
