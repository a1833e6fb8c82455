"""The folder job: nothing lost, nothing touched, resumable, and honest about every file."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.protect.test_tiles import write

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.pictures import Edit, open_picture, save_picture
from unlikeness.protect import job
from unlikeness.protect.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.base import Perturber
from unlikeness.protect.folder import Outcome, protect_folder
from unlikeness.protect.manifest import NAME
from unlikeness.protect.noise import Noise, NoiseSettings
from unlikeness.protect.photoguard import PhotoGuard, PhotoGuardSettings
from unlikeness.protect.survey import survey


@pytest.fixture
def noise(model: TextToImage) -> Noise:
    return Noise(model, NoiseSettings(budget=4))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five good pictures in two folders, and three files that are none."""
    root = tmp_path / "photos"
    (root / "deep" / "er").mkdir(parents=True)
    write(root / "a.png", 90, 64, seed=1)
    write(root / "b.jpg", 70, 70, seed=2)
    write(root / "deep" / "a.png", 40, 60, seed=3)
    write(root / "deep" / "er" / "c.bmp", 33, 21, seed=4)
    write(root / "z.webp", 64, 48, seed=5)
    (root / "broken.jpg").write_bytes((root / "b.jpg").read_bytes()[:300])
    (root / "not.png").write_text("hello")
    (root / "notes.txt").write_text("not a picture, and passed over")
    write(root / ".hidden.png", 20, 20)
    return root


GOOD = ["a.png", "b.jpg", "z.webp", "deep/a.png", "deep/er/c.bmp"]


def run(paths: Path | Sequence[Path], output: Path, perturber: Perturber, **options: Any) -> Outcome:
    named = [paths] if isinstance(paths, Path) else paths
    return protect_folder(named, output, perturber, method="noise", model="tiny", **options)


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / NAME).read_text().splitlines()]


def timeless(output: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": None} for line in lines(output)]


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


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


def test_a_second_run_has_nothing_to_do_but_the_files_that_failed(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    output = tmp_path / "out"
    run(photos, output, noise)
    before = contents(output)
    stamps = {name: (output / name).stat().st_mtime_ns for name in GOOD}
    shutil.copy(photos / "a.png", photos / "not.png")
    outcome = run(photos, output, noise)
    assert outcome.before == GOOD
    assert [entry.path for entry in outcome.protected] == ["not.png"]
    assert [entry.path for entry in outcome.skipped] == ["broken.jpg"]
    assert {name: (output / name).stat().st_mtime_ns for name in GOOD} == stamps
    assert (output / NAME).read_bytes().startswith(before[NAME])


def test_changed_inputs_outputs_and_settings_are_done_again(
    photos: Path, tmp_path: Path, model: TextToImage, noise: Noise
) -> None:
    output = tmp_path / "out"
    run(photos, output, noise)
    before = contents(output)
    write(photos / "a.png", 90, 64, seed=9)
    (output / "z.webp").unlink()
    (output / "b.jpg").write_bytes(b"spoilt")
    outcome = run(photos, output, noise)
    assert [entry.path for entry in outcome.protected] == ["a.png", "b.jpg", "z.webp"]
    assert contents(output)["b.jpg"] == before["b.jpg"]
    assert contents(output)["z.webp"] == before["z.webp"]
    assert len(run(photos, output, noise, seed=1).protected) == len(GOOD)
    assert len(run(photos, output, Noise(model, NoiseSettings(budget=5)), seed=1).protected) == len(GOOD)


def test_a_model_of_the_same_name_with_other_weights_and_another_target_are_noticed(
    tmp_path: Path, model: TextToImage
) -> None:
    source, output = write(tmp_path / "a.png", 40, 40), tmp_path / "out"
    target = write(tmp_path / "target.png", 20, 20, seed=5)
    settings = PhotoGuardSettings(steps=1, target=str(target))
    assert run(source, output, PhotoGuard(model, settings)).protected
    assert run(source, output, PhotoGuard(model, settings)).before
    (line,) = lines(output)
    assert line["computed"] == {"batch_size": 4, "device": "cpu", "dtype": "torch.float32"}
    other = model.copy()
    with torch.no_grad():
        next(other.unet.parameters()).add_(0.01)
    assert run(source, output, PhotoGuard(other, settings)).protected
    write(target, 20, 20, seed=6)
    assert run(source, output, PhotoGuard(other, settings)).protected
    # Another batch size moves a result by rounding only: no reason to do it again.
    assert run(source, output, PhotoGuard(other, settings), batch_size=2).before


def test_a_copy_that_could_not_be_changed_is_called_one(tmp_path: Path, model: TextToImage) -> None:
    source = write(tmp_path / "a.png", 40, 40)
    (entry,) = run(source, tmp_path / "out", Noise(model, NoiseSettings(budget=0.5))).protected
    assert entry.linf == 0
    assert str(entry.note).startswith("nothing was changed")
    assert (tmp_path / "out" / "a.png").read_bytes() == source.read_bytes()


def test_only_the_first_files_are_done_at_their_own_places(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    (photos / "z.webp").unlink()
    outcome = run(photos, tmp_path / "out", noise, limit=5)
    assert [e.path for e in outcome.protected] == ["a.png", "b.jpg", "deep/a.png"]
    assert len(outcome.skipped) == 2


def test_a_name_that_is_not_printable_leads_to_no_place_on_the_disk(tmp_path: Path, noise: Noise) -> None:
    name = "Screenshot  9.41\u202fAM.png"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"nothing")
    outcome = run(tmp_path / "in", tmp_path / "out", noise)
    assert str(outcome.skipped[0].reason).startswith("Screenshot 9.41 AM.png: it is no JPEG")
    assert outcome.skipped[0].path == name
    assert str(tmp_path) not in (tmp_path / "out" / NAME).read_text()


def test_a_pipe_is_refused_and_does_not_block(tmp_path: Path, noise: Noise) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    outcome = run(tmp_path / "pipe.png", tmp_path / "out", noise)
    assert "it is not a file" in str(outcome.skipped[0].reason)


def test_a_saved_picture_that_cannot_be_read_is_removed(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spoilt, said in ((b"spoilt", "no JPEG"), ((photos / "deep" / "a.png").read_bytes(), "in the size")):
        with monkeypatch.context() as patch:
            patch.setattr(job, "save_picture", lambda picture, edit, path, b=spoilt: path.write_bytes(b))
            outcome = run(photos / "a.png", tmp_path / "out", noise)
        assert said in str(outcome.skipped[0].reason)
        assert "the saved picture was removed" in str(outcome.skipped[0].reason)
        assert not (tmp_path / "out" / "a.png").exists()


def test_a_picture_that_does_not_fit_in_memory_is_skipped(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Large(Edit):
        def __init__(self, picture: Any, **options: Any) -> None:
            if picture.path.name == "b.jpg":
                raise MemoryError
            super().__init__(picture, **options)

    monkeypatch.setattr(job, "Edit", Large)
    outcome = run(photos, tmp_path / "out", noise)
    assert [entry.path for entry in outcome.protected] == [name for name in GOOD if name != "b.jpg"]
    (reason,) = [entry.reason for entry in outcome.skipped if entry.path == "b.jpg"]
    assert "does not fit in memory" in str(reason)


class Killed(BaseException):
    """As if the process had ended here."""


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_killed_run_goes_on_to_what_an_uninterrupted_one_gives(
    photos: Path, tmp_path: Path, model: TextToImage, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    advdm = AdvDM(model, AdvDMSettings(steps=2))
    whole, output = tmp_path / "whole", tmp_path / "out"
    run(photos, whole, advdm)
    saved = 0

    def dying(*args: Any, **options: Any) -> None:
        nonlocal saved
        saved += 1
        if saved == at + 1:
            raise Killed
        save_picture(*args, **options)

    monkeypatch.setattr(job, "save_picture", dying)
    with pytest.raises(Killed):
        run(photos, output, advdm)
    monkeypatch.undo()
    finished = len(lines(output)) if (output / NAME).exists() else 0
    assert finished < len(lines(whole))
    # What a kill leaves: half a line, and half a picture under its temporary name.
    with (output / NAME).open("a") as file:
        file.write('{"path": "z.webp", "status": "prot')
    (output / ".unlikeness-0123.part").write_bytes(b"half")
    outcome = run(photos, output, advdm)
    assert len(outcome.before) == sum(line["status"] == "protected" for line in lines(output)[:finished])
    got, wanted = contents(output), contents(whole)
    assert {n: got[n] for n in GOOD} == {n: wanted[n] for n in GOOD}
    assert got.keys() == wanted.keys()
    latest = {line["path"]: line for line in timeless(output)}
    assert latest == {line["path"]: line for line in timeless(whole)}


def test_the_order_and_the_names_of_files_do_not_change_a_picture(
    photos: Path, tmp_path: Path, model: TextToImage
) -> None:
    advdm = AdvDM(model, AdvDMSettings(steps=2))
    run(photos, tmp_path / "out", advdm)
    alone = tmp_path / "renamed.png"
    shutil.copy(photos / "deep" / "a.png", alone)
    run(alone, tmp_path / "single", advdm)
    assert (tmp_path / "single" / "renamed.png").read_bytes() == (tmp_path / "out/deep/a.png").read_bytes()


def test_an_output_inside_the_input_is_no_input(photos: Path, noise: Noise) -> None:
    output = photos / "protected"
    run(photos, output, noise)
    outcome = run(photos, output, noise)
    assert outcome.before == GOOD
    assert sorted(contents(output)) == sorted([*GOOD, NAME])


def test_an_output_that_is_the_input_is_refused_before_anything_happens(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    before = contents(photos)
    link = tmp_path / "link"
    link.symlink_to(photos)
    for output in (photos, link, photos / "deep" / ".."):
        with pytest.raises(UsageError, match="originals are never touched"):
            run(photos, output, noise)
    with pytest.raises(UsageError, match="originals are never touched"):
        run(photos / "a.png", photos, noise)
    with pytest.raises(UsageError, match="originals are never touched"):
        run([photos / "b.jpg", photos / "deep"], photos, noise)
    with pytest.raises(UsageError, match=r"a\.png exists"):
        run(photos / "deep" / "a.png", photos, noise)
    assert contents(photos) == before


def test_files_of_other_origin_in_the_output_are_not_overwritten(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "b.jpg").write_text("somebody's")
    with pytest.raises(UsageError, match=r"b\.jpg exists"):
        run(photos, output, noise)
    assert (output / "b.jpg").read_text() == "somebody's"


def test_several_folders_keep_their_names_and_a_clash_is_said(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(other / "a.png", 32, 32, seed=8)
    outcome = run([photos, other], tmp_path / "out", noise)
    assert {entry.path for entry in outcome.protected} == {"other/a.png", *(f"photos/{n}" for n in GOOD)}
    with pytest.raises(UsageError, match=r"photos/a\.png and .*other/a\.png would both"):
        run([photos / "a.png", other / "a.png"], tmp_path / "out2", noise)
    assert not (tmp_path / "out2").exists()


def test_nothing_to_protect_and_an_output_that_is_a_file_are_usage_errors(
    tmp_path: Path, photos: Path, noise: Noise
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no pictures"):
        run(tmp_path / "empty", tmp_path / "out", noise)
    with pytest.raises(UsageError, match="does not exist"):
        run(tmp_path / "nowhere", tmp_path / "out", noise)
    with pytest.raises(UsageError, match="is a file"):
        run(photos, photos / "a.png", noise)


def test_a_full_disk_ends_the_run_with_one_line_and_keeps_what_is_done(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    real = Path.replace
    count = 0

    def full(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UnlikenessError, match=r"No space left on device.*start again") as caught:
        run(photos, output, noise)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert not list(output.rglob("*.part"))
    outcome = run(photos, output, noise)
    assert len(outcome.before) + len(outcome.protected) == len(GOOD)
    assert outcome.before


def test_a_saved_picture_over_the_budget_is_removed_and_told(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(picture: Any, edit: Any, path: Path) -> None:
        edit.stored[...] = 255 - edit.stored
        save_picture(picture, edit, path)

    monkeypatch.setattr(job, "save_picture", careless)
    outcome = run(photos / "a.png", tmp_path / "out", noise)
    assert not outcome.protected
    assert "over the budget of 4/255" in str(outcome.skipped[0].reason)
    assert not (tmp_path / "out" / "a.png").exists()


def test_pictures_over_the_bound_are_skipped(photos: Path, tmp_path: Path, noise: Noise) -> None:
    outcome = run(photos, tmp_path / "out", noise, max_pixels=4000)
    assert [e.path for e in outcome.protected] == ["z.webp", "deep/a.png", "deep/er/c.bmp"]
    assert "over the bound of 4,000" in str(outcome.skipped[0].reason)


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


def test_a_failing_protection_is_not_hidden(photos: Path, tmp_path: Path, noise: Noise) -> None:
    class Failing:
        settings = noise.settings
        resolution = 32

        def perturb(
            self, images: torch.Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
        ) -> torch.Tensor:
            raise torch.OutOfMemoryError

    with pytest.raises(UnlikenessError, match="smaller batch size"):
        run(photos, tmp_path / "out", Failing())


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
