"""What is measured of a saved picture does not depend on how its file lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlikeness.pictures import Edit, Picture, memory, open_picture
from unlikeness.pictures.formats.base import to_stored
from unlikeness.protect.files import check


def stored(path: Path, upright: np.ndarray, orientation: int) -> Picture:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(to_stored(upright, orientation))).save(path, exif=exif)
    return open_picture(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_on_its_side_is_measured_as_the_upright_one(
    orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    before = rng.integers(20, 236, (50, 30, 3), dtype=np.uint8)
    change = rng.integers(-9, 10, before.shape)
    after = (before + change).astype(np.uint8)
    original = stored(tmp_path / "a.png", before, orientation)
    saved = stored(tmp_path / "b.png", after, orientation)
    edit = Edit(original, budget=16)
    edit.write(0, 0, saved.rgb)
    monkeypatch.setattr(check, "_BAND_PIXELS", 90)
    monkeypatch.setattr(memory, "PAGED", 1)
    seen = check.compare(original, saved)
    assert seen.linf == np.abs(change).max()
    assert seen.psnr == pytest.approx(-10 * np.log10(np.square(change / 255).mean()))
    assert seen.ssim is not None
    assert check.kept(original, edit, saved, enough=0.5) == pytest.approx(1)
    assert check.kept(original, edit, original, enough=0.5) == 0
