"""Files, disks and memory that fail under the folder job: one line each, and the rest goes on."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.protect.folders import GOOD, lines, run
from tests.protect.test_tiles import write

from unlikeness.errors import UnlikenessError
from unlikeness.pictures import Edit, open_picture, save_picture
from unlikeness.protect.files import worker
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.files.manifest import NAME, digest
from unlikeness.protect.methods.noise import Noise
from unlikeness.protect.settings import ResolutionMode
from unlikeness.protect.tiling.tiles import PictureTiles, Tile
from unlikeness.seeds import derive


def opened(path: Path, noise: Noise) -> list[Tile]:
    """The tiles of a picture as the folder job cuts them."""
    seed = derive(0, digest(path))
    picture = open_picture(path)
    return list(
        PictureTiles(
            picture,
            Edit(picture, budget=4),
            resolution=noise.resolution,
            budget=4,
            at=ResolutionMode(),
            seed=seed,
        ).tiles()
    )


def test_a_name_that_is_not_printable_leads_to_no_place_on_the_disk(tmp_path: Path, noise: Noise) -> None:
    name = "Screenshot  9.41\u202fAM.png"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"nothing")
    outcome = run(tmp_path / "in", tmp_path / "out", noise)
    assert str(outcome.skipped[0].reason).startswith("Screenshot 9.41 AM.png: it is no JPEG")
    assert outcome.skipped[0].path == name
    assert str(tmp_path) not in (tmp_path / "out" / NAME).read_text()


def test_a_name_of_a_model_that_is_not_utf_8_is_kept_in_escapes(tmp_path: Path, noise: Noise) -> None:
    source, output = write(tmp_path / "é.png", 40, 40), tmp_path / "out"
    model = os.fsdecode(b"models/caf\xe9")
    (entry,) = protect_folder([source], output, noise, method="noise", model=model).protected
    assert entry.recipe["model"] == model
    assert lines(output)[0]["recipe"]["model"] == model
    assert protect_folder([source], output, noise, method="noise", model=model).before == ["é.png"]


def test_a_pipe_is_refused_and_does_not_block(tmp_path: Path, noise: Noise) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    outcome = run(tmp_path / "pipe.png", tmp_path / "out", noise)
    assert "it is not a file" in str(outcome.skipped[0].reason)


def test_a_saved_picture_that_cannot_be_read_is_removed(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spoilt, said in ((b"spoilt", "no JPEG"), ((photos / "deep" / "a.png").read_bytes(), "in the size")):
        with monkeypatch.context() as patch:
            patch.setattr(worker, "save_picture", lambda picture, edit, path, b=spoilt: path.write_bytes(b))
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

    monkeypatch.setattr(worker, "Edit", Large)
    outcome = run(photos, tmp_path / "out", noise)
    assert [entry.path for entry in outcome.protected] == [name for name in GOOD if name != "b.jpg"]
    (reason,) = [entry.reason for entry in outcome.skipped if entry.path == "b.jpg"]
    assert "does not fit in memory" in str(reason)


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

    monkeypatch.setattr(worker, "save_picture", careless)
    outcome = run(photos / "a.png", tmp_path / "out", noise)
    assert not outcome.protected
    assert "over the budget of 4/255" in str(outcome.skipped[0].reason)
    assert not (tmp_path / "out" / "a.png").exists()


def test_pictures_over_the_bound_are_skipped(photos: Path, tmp_path: Path, noise: Noise) -> None:
    outcome = run(photos, tmp_path / "out", noise, max_pixels=4000)
    assert [e.path for e in outcome.protected] == ["z.webp", "deep/a.png", "deep/er/c.bmp"]
    assert "over the bound of 4,000" in str(outcome.skipped[0].reason)


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


def test_a_protection_that_answers_with_no_numbers_costs_one_picture(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    perturb = Noise.perturb

    def overflown(self: Noise, images: torch.Tensor, seeds: Sequence[int], told: Any = None) -> torch.Tensor:
        protected = perturb(self, images, seeds, told)
        protected[[i for i, seed in enumerate(seeds) if seed in unlucky]] = torch.nan
        return protected

    unlucky = {tile.seed for tile in opened(photos / "b.jpg", noise)}
    monkeypatch.setattr(Noise, "perturb", overflown)
    outcome = run(photos, tmp_path / "out", noise)
    assert [entry.path for entry in outcome.protected] == [name for name in GOOD if name != "b.jpg"]
    (said,) = [str(entry.reason) for entry in outcome.skipped if entry.path == "b.jpg"]
    assert said == "b.jpg: the protection answered with values that are not numbers; give another method"
    assert not (tmp_path / "out" / "b.jpg").exists()


def test_a_path_that_is_too_long_costs_that_file_alone(photos: Path, tmp_path: Path, noise: Noise) -> None:
    """Names at the limit are fine; folders below the longest path, and outputs beyond it, are told."""
    write(photos / f"{'n' * 251}.png", 40, 30)
    before, deep = Path.cwd(), "d" * 200
    os.chdir(photos)
    try:
        for _ in range(25):  # each is made in the one before: no path to it need exist
            Path(deep).mkdir()
            os.chdir(deep)
        write(Path("below.png"), 40, 30)
    finally:
        os.chdir(before)
    outcome = run(photos, tmp_path / "out", noise)
    assert f"{'n' * 251}.png" in [entry.path for entry in outcome.protected]
    assert {entry.path for entry in outcome.protected} >= set(GOOD)
    (reason,) = [str(one.reason) for one in outcome.skipped if one.path.startswith("dddd")]
    assert reason.endswith(": it cannot be read (File name too long)")
    output = tmp_path
    while len(str(output)) < 4096 - 240:
        output /= "o" * 200
    outcome = run(photos, output / ("o" * (4096 - 41 - len(str(output)))), noise)
    assert "a.png" in [entry.path for entry in outcome.protected]
    reasons = {one.path: str(one.reason) for one in outcome.skipped}
    assert "File name too long" in reasons[f"{'n' * 251}.png"]
    shutil.rmtree(photos / deep)
