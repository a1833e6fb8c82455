"""The folder job started again: what is finished stays, the rest becomes what it would have been."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.protect.folders import GOOD, contents, lines, run, timeless
from tests.protect.test_tiles import write

from unlikeness.diffusion import TextToImage
from unlikeness.pictures import save_picture
from unlikeness.protect.files import worker
from unlikeness.protect.files.manifest import NAME
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.methods.noise import Noise, NoiseSettings
from unlikeness.protect.methods.photoguard import PhotoGuard, PhotoGuardSettings


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
        next(other.denoiser.parameters()).add_(0.01)
    assert run(source, output, PhotoGuard(other, settings)).protected
    write(target, 20, 20, seed=6)
    assert run(source, output, PhotoGuard(other, settings)).protected
    # Another batch size moves a result by rounding only: no reason to do it again.
    assert run(source, output, PhotoGuard(other, settings), batch_size=2).before


def test_a_file_that_can_no_longer_be_used_loses_its_older_copy(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    output, masks = tmp_path / "out", tmp_path / "masks"
    run(photos, output, noise)
    for name in ("b.jpg", "z.webp"):
        (photos / name).write_bytes((photos / name).read_bytes()[:200])
    (output / "z.webp").write_bytes(b"somebody's")
    masks.mkdir()
    write(masks / "a.png", 20, 90)
    outcome = run(photos, output, noise, mask=masks, max_pixels=4000)
    skipped = {entry.path: str(entry.reason) for entry in outcome.skipped}
    assert sorted(skipped) == ["a.png", "b.jpg", "broken.jpg", "not.png", "z.webp"]
    removed = [name for name, reason in skipped.items() if "an earlier run made was removed" in reason]
    assert sorted(removed) == ["a.png", "b.jpg"]
    assert sorted(contents(output)) == sorted([NAME, "deep/a.png", "deep/er/c.bmp", "z.webp"])
    assert (output / "z.webp").read_bytes() == b"somebody's"


def test_an_older_copy_that_cannot_be_removed_is_told_and_ends_no_run(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, unlink = tmp_path / "out", Path.unlink
    run(photos, output, noise)
    (photos / "b.jpg").write_bytes(b"nothing")

    def held(self: Path, missing_ok: bool = False) -> None:
        if self == output / "b.jpg":
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    skipped = {entry.path: str(entry.reason) for entry in run(photos, output, noise).skipped}
    assert "made cannot be removed (Permission denied), remove it" in skipped["b.jpg"]


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

    monkeypatch.setattr(worker, "save_picture", dying)
    with pytest.raises(Killed):
        run(photos, output, advdm)
    monkeypatch.undo()
    finished = len(lines(output)) if (output / NAME).exists() else 0
    assert finished < len(lines(whole))
    # What a kill leaves: half a line, and half a picture under its temporary name.
    with (output / NAME).open("a") as file:
        file.write('{"path": "z.webp", "status": "prot')
    (output / ".unlikeness-0123456789abcdef.part").write_bytes(b"half")
    outcome = run(photos, output, advdm)
    assert len(outcome.before) == sum(line["status"] == "protected" for line in lines(output)[:finished])
    got, wanted = contents(output), contents(whole)
    assert {n: got[n] for n in GOOD} == {n: wanted[n] for n in GOOD}
    assert got.keys() == wanted.keys()
    latest = {line["path"]: line for line in timeless(output)}
    assert latest == {line["path"]: line for line in timeless(whole)}


@pytest.mark.parametrize("renamed", [False, True])
def test_a_kill_around_the_renaming_leaves_no_file_without_a_line(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    run(photos, whole, noise)
    real = Path.replace

    def dying(self: Path, target: Path) -> Path:
        if Path(target).name == "b.jpg":
            if renamed:
                real(self, target)
            raise Killed
        return real(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(Killed):
        run(photos, output, noise)
    monkeypatch.undo()
    assert (output / "b.jpg").exists() is renamed
    assert contents(output).keys() <= {NAME, *(line["path"] for line in lines(output))}
    assert len(run(photos, output, noise).before) == 1 + renamed
    assert {**contents(output), NAME: b""} == {**contents(whole), NAME: b""}
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
