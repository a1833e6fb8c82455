"""Tiles cover an axis, one in the very centre, and their windows are a partition of unity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlikeness.protect.tiling.layout import Axis
from unlikeness.protect.tiling.resample import Enlarger, shrink


@given(st.integers(1, 3000), st.integers(1, 200), st.floats(0, 0.5))
def test_windows_are_a_partition_of_unity(length: int, tile: int, overlap: float) -> None:
    axis = Axis.of(length, tile, int(overlap * tile))
    total = np.zeros(length)
    for i in range(len(axis)):
        window = axis.window(i)
        assert window.min() >= 0
        total[axis.starts[i] : axis.stop(i)] += window
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert list(axis.starts) == sorted(set(axis.starts))


@given(st.integers(64, 3000))
def test_the_centre_square_keeps_its_own_perturbation(length: int) -> None:
    axis = Axis.of(length, 64, 8)
    start = axis.starts[axis.centre]
    assert abs(start + 32 - length / 2) <= 0.5
    assert (axis.window(axis.centre)[8:-8] == 1).all()


def test_a_photograph_needs_three_tiles_and_a_square_one() -> None:
    assert len(Axis.of(64, 64, 8)) == 1
    assert Axis.of(85, 64, 8).starts == (0, 10, 21)
    assert Axis.of(10, 64, 8).starts == (0,)


def test_a_ramp_over_half_a_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="ramp"):
        Axis.of(100, 10, 6)


def ramp_picture(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([(x + 0.5) / width, (y + 0.5) / height, np.full_like(x, 0.25)], axis=-1)


def test_shrinking_keeps_the_mean_and_the_place_whatever_the_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torch.nn.functional as F

    pixels = np.random.default_rng(0).random((90, 130, 3), dtype=np.float32)

    def window(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return pixels[y0:y1, x0:x1]

    whole = shrink(window, (130, 90), (32, 22))
    monkeypatch.setattr("unlikeness.protect.tiling.resample.BAND_PIXELS", 130 * 7)
    np.testing.assert_allclose(shrink(window, (130, 90), (32, 22)), whole, atol=1e-6)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    wanted = F.interpolate(batch, (22, 32), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    np.testing.assert_allclose(whole, wanted.numpy(), atol=1e-5)


def test_nothing_is_resampled_at_the_same_size() -> None:
    pixels = np.random.default_rng(0).random((9, 13, 3), dtype=np.float32)
    same = shrink(lambda y0, y1, x0, x1: pixels[y0:y1, x0:x1], (13, 9), (13, 9))
    np.testing.assert_allclose(same, pixels, atol=1e-6)
    np.testing.assert_allclose(Enlarger(pixels, (13, 9)).band(0, 9), pixels, atol=1e-6)


def test_enlarging_is_smooth_and_the_same_in_bands() -> None:
    enlarger = Enlarger(ramp_picture(8, 6), (80, 60))
    whole = enlarger.band(0, 60)
    np.testing.assert_array_equal(np.concatenate([enlarger.band(0, 13), enlarger.band(13, 60)]), whole)
    inside = np.s_[20:-20, 20:-20]
    np.testing.assert_allclose(whole[inside], ramp_picture(80, 60)[inside], atol=1e-3)
