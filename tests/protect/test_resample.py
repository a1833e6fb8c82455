"""Pictures made smaller as training scripts do it, and perturbations made larger."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unlikeness.protect.tiling import resample
from unlikeness.protect.tiling.resample import Enlarger, shrink


@pytest.mark.parametrize(
    ("size", "to"),
    [
        ((300, 200), (45, 30)),
        ((37, 53), (36, 50)),
        ((100, 7), (50, 4)),
        ((64, 48), (64, 48)),
        ((9, 1), (3, 1)),
    ],
)
def test_shrinking_is_torchs_antialiased_resizing(size: tuple[int, int], to: tuple[int, int]) -> None:
    (width, height), (w, h) = size, to
    picture = np.random.default_rng(0).random((height, width, 3), np.float32)
    found = shrink(lambda y0, y1, x0, x1: picture[y0:y1, x0:x1], size, to)
    there = torch.from_numpy(picture).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(there, (h, w), mode="bilinear", antialias=True)
    assert found.shape == (h, w, 3)
    assert np.abs(found - wanted[0].permute(1, 2, 0).numpy()).max() < 1e-4


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    picture, delta = rng.random((90, 70, 3), np.float32), rng.normal(size=(12, 9, 3)).astype(np.float32)

    def small() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return shrink(lambda y0, y1, x0, x1: picture[y0:y1, x0:x1], (70, 90), (20, 26))

    whole = small()
    monkeypatch.setattr(resample, "BAND_PIXELS", 7 * 70)
    assert np.abs(small() - whole).max() < 1e-6
    enlarger = Enlarger(delta, (70, 90))
    bands = [enlarger.band(y0, min(y0 + 7, 90)) for y0 in range(0, 90, 7)]
    assert np.abs(np.concatenate(bands) - enlarger.band(0, 90)).max() < 1e-5


def test_a_flat_perturbation_stays_flat() -> None:
    enlarged = Enlarger(np.full((5, 4, 3), 0.25, np.float32), (31, 40)).band(0, 40)
    assert enlarged.shape == (40, 31, 3)
    assert np.abs(enlarged - 0.25).max() < 1e-6
