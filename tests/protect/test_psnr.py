"""A visibility that is asked for is met: the change is weakened picture by picture, never strengthened."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.protect.test_tiles import write

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.protect.files.check import FAINT
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.methods.noise import Noise, NoiseSettings
from unlikeness.protect.settings import ResolutionMode


@pytest.mark.parametrize("mode", ["fit", "tiles", "both"])
@pytest.mark.parametrize("budget", [8.0, 16.0])
def test_each_picture_is_at_least_as_faint_as_asked(
    tmp_path: Path, model: TextToImage, mode: str, budget: float
) -> None:
    for i, size in enumerate([(90, 70), (200, 50)]):
        write(tmp_path / f"{i}.png", *size, seed=i)
    noise = Noise(model, NoiseSettings(budget=budget))
    scale = ResolutionMode(mode=mode)
    found = protect_folder([tmp_path], tmp_path / "out", noise, method="noise", at=scale, psnr=38.0)
    assert len(found.protected) == 2
    for entry in found.protected:
        assert entry.psnr is not None
        assert entry.psnr > 37.9
        assert entry.recipe["psnr"] == 38.0
        if mode == "tiles":
            assert entry.psnr < 39.5  # cross-fading weakens what two tiles do not agree on


def test_a_faint_change_is_not_strengthened(tmp_path: Path, model: TextToImage) -> None:
    write(tmp_path / "a.png", 64, 64)
    noise = Noise(model, NoiseSettings(budget=2.0))
    bounded = protect_folder([tmp_path / "a.png"], tmp_path / "b", noise, method="noise", psnr=30.0)
    free = protect_folder([tmp_path / "a.png"], tmp_path / "f", noise, method="noise")
    assert bounded.protected[0].psnr == free.protected[0].psnr
    assert "psnr" not in free.protected[0].recipe


@pytest.mark.parametrize("psnr", [float("nan"), float("inf")])
def test_a_bound_that_is_no_number_is_refused_before_anything_is_written(
    tmp_path: Path, model: TextToImage, psnr: float
) -> None:
    write(tmp_path / "a.png", 64, 64)
    noise = Noise(model, NoiseSettings())
    with pytest.raises(UsageError, match="psnr must be a finite number"):
        protect_folder([tmp_path / "a.png"], tmp_path / "out", noise, method="noise", psnr=psnr)
    assert not (tmp_path / "out").exists()


def test_a_change_that_rounding_takes_away_is_told(tmp_path: Path, model: TextToImage) -> None:
    write(tmp_path / "a.png", 64, 64)
    noise = Noise(model, NoiseSettings(budget=8.0))
    found = protect_folder([tmp_path / "a.png"], tmp_path / "b", noise, method="noise", psnr=90.0)
    (entry,) = found.unchanged
    assert (entry.note, entry.linf) == (FAINT, 0)
