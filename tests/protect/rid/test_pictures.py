"""Banks of training pictures: made once, the same for the same seed, and forgiving about damaged files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.progress import Silent
from unlikeness.protect.rid.train import pictures
from unlikeness.protect.rid.train.pictures import Bank, dead_leaves, drawn_bank, photo_bank

leaves_bank = partial(drawn_bank, "leaves")
MAKERS = [partial(drawn_bank, "renders"), leaves_bank]
Maker = Callable[..., Bank]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Counted(Silent):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.totals, self.done, self.closed = list[int | None](), 0, 0

    def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
        self.totals.append(total)

    def advance(self, n: int = 1, **figures: float) -> None:
        self.done += n

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("make", MAKERS)
def test_a_bank_is_drawn_once_and_read_afterwards(make: Maker, tmp_path: Path) -> None:
    folder, heard = tmp_path / "new" / "folder", Counted()
    bank = make(5, 24, seed=0, folder=folder, progress=heard)
    assert bank.pixels.shape == (len(bank), 24, 24, 3) == (5, 24, 24, 3)
    assert bank.pixels.dtype == np.uint8
    assert (heard.totals, heard.done) == ([5], 5)
    assert heard.closed
    (file,) = folder.iterdir()  # and nothing temporary beside it
    assert file.name == f"{bank.name}.npy"
    before = file.stat().st_mtime_ns
    again = make(5, 24, seed=0, folder=folder, progress=heard)
    assert heard.totals == [5]
    assert file.stat().st_mtime_ns == before
    assert np.array_equal(again.pixels, bank.pixels)
    assert again.pixels.std() > 10
    assert len({row.tobytes() for row in again.pixels}) == 5


@pytest.mark.parametrize("make", MAKERS)
def test_a_bank_depends_on_its_seed_and_a_longer_one_begins_alike(make: Maker, tmp_path: Path) -> None:
    bank = make(3, 20, seed=0, folder=tmp_path)
    elsewhere = make(3, 20, seed=0, folder=tmp_path / "other")
    longer = make(4, 20, seed=0, folder=tmp_path)
    other = make(3, 20, seed=1, folder=tmp_path)
    assert np.array_equal(bank.pixels, elsewhere.pixels)
    assert np.array_equal(bank.pixels, longer.pixels[:3])
    assert not np.array_equal(bank.pixels, other.pixels)
    assert len({bank.name, longer.name, other.name}) == 3


@pytest.mark.slow
def test_many_processes_draw_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = leaves_bank(5, 16, seed=0, folder=tmp_path / "alone")
    monkeypatch.setattr(pictures, "_FEW", 0)
    shared = leaves_bank(5, 16, seed=0, folder=tmp_path / "shared")
    assert np.array_equal(alone.pixels, shared.pixels)


def test_an_interrupted_bank_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Counted):
        def advance(self, n: int = 1, **figures: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leaves_bank(5, 16, seed=0, folder=tmp_path, progress=Interrupted())
    assert list(tmp_path.iterdir()) == []
    assert len(leaves_bank(5, 16, seed=0, folder=tmp_path)) == 5


def test_a_damaged_bank_is_named(tmp_path: Path) -> None:
    bank = leaves_bank(2, 16, seed=0, folder=tmp_path)
    file = tmp_path / f"{bank.name}.npy"
    for damage in (b"", file.read_bytes()[:-1], b"\x00" * 200):
        file.write_bytes(damage)
        with pytest.raises(UnlikenessError, match=r"leaves-0-2-16\.npy is damaged .*; delete it"):
            leaves_bank(2, 16, seed=0, folder=tmp_path)


def test_dead_leaves_have_edges_flat_areas_and_the_spectrum_of_photographs() -> None:
    rng = np.random.default_rng(0)
    images = [dead_leaves(rng, 64) for _ in range(24)]
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in images)
    gray = np.stack(images).mean(3) / 255
    power = np.abs(np.fft.fft2(gray - gray.mean((1, 2), keepdims=True))).mean(0) ** 2
    f = np.fft.fftfreq(64)
    radius = np.hypot(f[:, None], f[None])
    low, high = (power[(radius > a) & (radius < b)].mean() for a, b in ((0.02, 0.06), (0.2, 0.4)))
    # Amplitudes of photographs fall as 1/f, power as 1/f²; white noise would give 1.
    assert 20 < low / high < 3000
    steps = np.abs(np.diff(gray, axis=2))
    assert np.median(steps) < 0.03  # most neighbours are alike
    assert np.quantile(steps, 0.99) > 0.08  # and edges are steep


@pytest.mark.parametrize("side", [8, 24, 60])
def test_draws_are_square_in_range_and_reproducible(side: int, tmp_path: Path) -> None:
    bank = leaves_bank(4, 30, seed=0, folder=tmp_path)
    drawn = bank.draw(6, side, generator())
    assert (drawn.shape, drawn.dtype) == ((6, 3, side, side), torch.float32)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert torch.equal(drawn, bank.draw(6, side, generator()))
    assert not torch.equal(drawn, bank.draw(6, side, generator(1)))


def test_draws_mirror_half_of_the_pictures_and_vary_scale() -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, None, :, None] * 6, (1, 40, 40, 3))
    drawn = Bank(ramp.copy()).draw(200, 16, generator())
    rises = drawn[:, 0, 8, 15] - drawn[:, 0, 8, 0]
    assert 70 < int((rises > 0).sum()) < 130
    assert rises.abs().min() < 0.5 * rises.abs().max()


def photographs(folder: Path) -> Path:
    folder.mkdir()
    for i, size in enumerate(((40, 30), (20, 50), (8, 8))):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_photographs_become_squares_and_damaged_files_are_left_out(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in")
    (folder / "a.jpg").write_text("no picture")
    whole = (folder / "0.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no picture either")
    heard = Counted()
    bank = photo_bank([folder], 16, folder=tmp_path / "work", progress=heard)
    assert bank.pixels.shape == (3, 16, 16, 3)
    assert (heard.totals, heard.done) == ([5], 5)
    assert [file.name for file in (tmp_path / "work").iterdir()] == [f"{bank.name}.npy"]
    said: list[str] = []
    photo_bank([folder], 16, folder=tmp_path / "work", progress=heard, report=said.append)
    assert heard.totals == [5]
    assert said == [
        "--images: 2 of 5 pictures cannot be read and are left out; once they can, delete "
        f"{tmp_path / 'work' / bank.name}.npy"
    ]
    photo_bank([folder], 16, folder=tmp_path / "anew", report=said.append)
    assert "a.jpg: it is no JPEG" in said[1]
    (folder / "1.png").unlink()
    fewer = photo_bank([folder], 16, folder=tmp_path / "work")
    assert (len(fewer), fewer.name == bank.name) == (2, False)


def test_photographs_of_kinds_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in")
    (folder / "a.nef").write_bytes(b"of no concern")
    said: list[str] = []
    assert len(photo_bank([folder], 16, folder=tmp_path / "work", report=said.append)) == 3
    assert said == ["--images: 1 file cannot be read: 1 RAW (NEF); export it as JPEG, PNG or TIFF first"]


def test_a_name_in_another_encoding_is_read_too(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in")
    (folder / "0.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    assert len(photo_bank([folder], 16, folder=tmp_path / "work")) == 3


def test_a_photograph_keeps_its_centre(tmp_path: Path) -> None:
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = (250, 120, 10)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    bank = photo_bank([tmp_path / "wide.png"], 16, folder=tmp_path / "work")
    assert (bank.pixels == np.array([250, 120, 10])).all()


def test_nothing_readable_is_an_error_that_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_text("no picture")
    with pytest.raises(UsageError, match="none of 1 files can be read"):
        photo_bank([folder], 16, folder=tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())
    with pytest.raises(UsageError, match="does not exist"):
        photo_bank([tmp_path / "missing"], 16, folder=tmp_path / "work")
