"""A protection that did nothing is not a protection: it is not counted as one, said, and no success."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.protect.folders import lines, run
from tests.protect.test_tiles import write

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.protect.files import worker
from unlikeness.protect.files.check import (
    BELOW,
    BLACK,
    COARSE,
    FAINT,
    HARDLY,
    NOTHING,
    UNCHANGED,
    kept,
)  # fmt: skip
from unlikeness.protect.files.manifest import NAME
from unlikeness.protect.methods.noise import Noise, NoiseSettings
from unlikeness.protect.methods.photoguard import PhotoGuard, PhotoGuardSettings
from unlikeness.protect.settings import ResolutionMode


def coarse(path: Path, quality: int, size: tuple[int, int] = (160, 120)) -> Path:
    """A smooth picture in a lossy format of this quality."""
    small = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=quality)
    return path


@pytest.mark.parametrize("quality", [1, 4])
def test_a_compression_that_takes_the_change_away_leaves_a_copy(
    tmp_path: Path, model: TextToImage, quality: int
) -> None:
    source = coarse(tmp_path / "a.jpg", quality)
    outcome = run(source, tmp_path / "out", Noise(model, NoiseSettings(budget=4)))
    assert not outcome.protected
    assert not outcome.complete
    (entry,) = outcome.unchanged
    assert str(entry.note).startswith(COARSE)
    assert (tmp_path / "out" / "a.jpg").exists()
    fine = run(coarse(tmp_path / "fine.jpg", 95), tmp_path / "out", Noise(model, NoiseSettings(budget=4)))
    assert [entry.path for entry in fine.protected] == ["fine.jpg"]


def test_what_outlives_the_compression_is_measured_along_the_change(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {}

    def listening(*pictures: Any, enough: float) -> float:
        shares[pictures[0].path.name] = kept(*pictures, enough=enough)
        return shares[pictures[0].path.name]

    monkeypatch.setattr("unlikeness.protect.files.check.kept", listening)
    for quality in (1, 60, 99):
        run(coarse(tmp_path / f"{quality}.jpg", quality, (400, 1400)), tmp_path / "out", noise)
    run(write(tmp_path / "a.png", 60, 60), tmp_path / "out", noise)
    assert "a.png" not in shares  # a lossless file holds all of it
    assert shares.get("1.jpg", 0.0) < 0.01 < shares["60.jpg"] < shares["99.jpg"]
    assert 0.5 < shares["99.jpg"] < 1.1


def test_a_protection_that_answers_with_the_picture_itself_has_not_protected(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noise, "perturb", lambda self, images, seeds, on_step=None: images.clone())
    (entry,) = run(write(tmp_path / "a.png", 40, 40), tmp_path / "out", noise).unchanged
    assert (entry.note, entry.linf) == (NOTHING, 0)


def test_without_a_gradient_no_noise_is_left_as_if_it_were_a_protection(model: TextToImage) -> None:
    class Blind(PhotoGuard):
        def objective(self, surrogate: Any, images: torch.Tensor, generators: Any) -> torch.Tensor:
            return (images * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)).flatten(1).sum(1)

    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = Blind(model, PhotoGuardSettings(steps=2)).perturb(images, [1, 2])
    assert torch.equal(result[0], images[0])
    assert (result[1] - images[1]).abs().max() > 1 / 255


@pytest.mark.parametrize("budget", [0.001, 0.3, 2.0])
def test_more_than_eight_bits_are_changed_by_what_eight_bits_show_or_not_at_all(
    tmp_path: Path, model: TextToImage, budget: float
) -> None:
    import tifffile

    rgb = np.random.default_rng(0).integers(20_000, 40_000, (60, 60, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    outcome = run(tmp_path / "a.tif", tmp_path / "out", Noise(model, NoiseSettings(budget=budget)))
    if budget == 2.0:
        assert outcome.complete
    else:
        assert str(outcome.unchanged[0].note) == (BELOW if budget == 0.3 else UNCHANGED)


def test_what_else_the_file_could_not_keep_is_still_noted(tmp_path: Path, model: TextToImage) -> None:
    image = Image.open(write(tmp_path / "x.png", 40, 40)).convert("P")
    image.save(tmp_path / "a.png")
    (entry,) = run(tmp_path / "a.png", tmp_path / "out", Noise(model, NoiseSettings(budget=0.5))).unchanged
    assert str(entry.note).startswith(f"{UNCHANGED}; ")


def test_a_second_run_finds_a_copy_and_calls_it_one(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    coarse(tmp_path / "in" / "a.jpg", 1)
    write(tmp_path / "in" / "b.png", 40, 40)
    first = run(tmp_path / "in", tmp_path / "out", noise)
    written = (tmp_path / "out" / NAME).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(worker, "save_picture", lambda *_: pytest.fail("it was done again"))
        second = run(tmp_path / "in", tmp_path / "out", noise)
    assert (second.before, second.protected) == (["b.png"], [])
    assert second.unchanged == first.unchanged
    assert not second.complete
    assert (tmp_path / "out" / NAME).read_bytes() == written
    # An earlier version called it protected.
    old = [{**line, "status": "protected"} for line in lines(tmp_path / "out")]
    (tmp_path / "out" / NAME).write_text("".join(json.dumps(line) + "\n" for line in old))
    third = run(tmp_path / "in", tmp_path / "out", noise)
    assert (third.before, third.unchanged) == (["b.png"], [replace(first.unchanged[0], status="unchanged")])


def test_one_copy_among_protected_pictures_is_told_and_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    coarse(tmp_path / "in" / "a.jpg", 1)
    write(tmp_path / "in" / "b.png", 60, 60)
    command = ["protect", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-q"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out.startswith("1 protected, 1 unchanged (copies, not protected), largest change")
    assert said.err == f"unchanged a.jpg: {COARSE}\n"
    assert main(command) == 1
    assert "0 protected, 1 unchanged (copies, not protected), 1 done before" in capsys.readouterr().out
    assert main([*command, "--psnr", "90"]) == 1
    assert FAINT in capsys.readouterr().err


def test_a_few_values_that_rounding_left_are_no_protection(tmp_path: Path, model: TextToImage) -> None:
    source = write(tmp_path / "a.png", 120, 120)

    class Sparse(Noise):
        """Nothing but a few values in ten thousand, by the whole budget."""

        share = 0.0003

        def perturb(self, images: torch.Tensor, seeds: Any, on_step: Any = None) -> torch.Tensor:
            chosen = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) < self.share
            return images + chosen * torch.where(images < 0.5, 4 / 255, -4 / 255)

    made = Sparse(model, NoiseSettings(budget=4))
    tiles = ResolutionMode(mode="tiles")
    (entry,) = run(source, tmp_path / "few", made, at=tiles).unchanged
    assert (entry.note, entry.linf) == (HARDLY, 4)
    Sparse.share = 0.1
    assert run(source, tmp_path / "more", made, at=tiles).complete
    Sparse.share = 0.0003
    Image.new("L", (120, 120), 255).save(tmp_path / "mask.png")  # who masks may want little
    assert run(source, tmp_path / "masked", made, at=tiles, mask=tmp_path / "mask.png").complete


def test_a_dry_run_foresees_what_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.png", 60, 60)
    Image.new("L", (60, 60), 10).save(tmp_path / "mask.png")
    command = ["protect", str(source), "-o", str(tmp_path / "out"), "--dry-run", "-q"]
    for options, why in ((["--budget", "0.9"], UNCHANGED), (["--mask", str(tmp_path / "mask.png")], BLACK)):
        assert main([*command, *options]) == 0
        said = capsys.readouterr().out
        assert f"a.png  60 × 60 px  1 tile  unchanged: {why}" in said
        assert "1 picture, 1 tile," in said
        assert "1 of them will be unchanged (copies, not protected); 0 to skip" in said
    assert main(command) == 0
    assert "unchanged" not in capsys.readouterr().out
