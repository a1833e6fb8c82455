"""What is just noticed has a figure of 1; a lattice stands out where noise of the same energy does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure.patterns import WINDOW, flat_pattern
from unlikeness.measure.sensitivity import (
    FLOOR,
    PIXELS_PER_DEGREE,
    WHITE,
    luminance_sensitivity,
    opponent,
    red_green_sensitivity,
    yellow_violet_sensitivity,
)

SIDE = 96


def plain(grey: float, side: int = SIDE) -> Tensor:
    return torch.full((3, side, side), grey)


def waves(period: float, side: int = SIDE, angle: float = 0.0) -> Tensor:
    """A sine of amplitude 1: [1, side, side]."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / period + 0.7).sin()[None]


def of_energy(change: Tensor, rms: float = 4 / 255) -> Tensor:
    return change / change.square().mean().sqrt() * rms


def linear(grey: float) -> float:
    return float(((grey + 0.055) / 1.055) ** 2.4) if grey > 0.04045 else grey / 12.92


def encoded(value: Tensor) -> Tensor:
    """Linear light to sRGB."""
    return torch.where(value <= 0.0031308, 12.92 * value, 1.055 * value.clamp(min=1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("grey", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("period", "angle"), [(4.0, 0.0), (8.0, 0.6), (13.3, 1.2), (5.5, 0.3)])
def test_a_grating_at_the_contrast_that_is_just_noticed_has_a_figure_of_1(
    grey: float, period: float, angle: float
) -> None:
    light = linear(grey)
    frequency = np.array(PIXELS_PER_DEGREE / period)
    threshold = 1 / float(luminance_sensitivity(frequency, np.array((light + FLOOR) * WHITE)))
    grating = encoded(light + threshold * (light + FLOOR) * waves(period, angle=angle)).expand(3, -1, -1)
    found = flat_pattern(plain(grey), grating)
    assert found.worst == pytest.approx(1, abs=0.08)
    assert found.mean == pytest.approx(1, abs=0.08)
    assert found.wavelength == pytest.approx(period, rel=0.1)
    assert found.flat == 1


def test_the_sensitivity_is_that_of_the_literature() -> None:
    """A peak of some hundreds at a few cycles per degree; less light shows less; colours are seen coarse."""
    frequency = np.logspace(-0.3, 1.5, 60)
    bright = luminance_sensitivity(frequency, np.array(100.0))
    assert 2 < float(frequency[bright.argmax()]) < 6
    assert 200 < float(bright.max()) < 700
    assert bool((luminance_sensitivity(frequency, np.array(1.0)) < bright).all())
    for colour in (red_green_sensitivity, yellow_violet_sensitivity):
        curve = colour(frequency, np.array(40.0))
        assert float(frequency[curve.argmax()]) < 1.5
        assert float(curve[-1]) < float(bright.max())


def test_greys_have_no_opponent_colour() -> None:
    greys = np.broadcast_to(np.linspace(0, 1, 7, dtype=np.float32), (3, 1, 7))
    seen = opponent(greys)
    assert np.abs(seen[1:]).max() < 1e-6
    assert float(seen[0].max()) == pytest.approx(1 + FLOOR)


def test_a_lattice_on_black_is_seen_and_noise_of_its_energy_much_less() -> None:
    black = plain(0.0)
    lattice = torch.zeros(1, SIDE, SIDE)
    lattice[:, ::4] = 1
    lattice[:, :, ::4] = 1
    noise = torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).abs()
    seen = flat_pattern(black, (black + of_energy(lattice, 8 / 255)).clamp(0, 1))
    random = flat_pattern(black, (black + of_energy(noise, 8 / 255)).clamp(0, 1))
    assert seen.worst is not None
    assert random.worst is not None
    assert seen.worst > 3
    assert seen.wavelength == pytest.approx(4, rel=0.05)
    assert random.worst < seen.worst / 2


@pytest.mark.parametrize("grey", [0.0, 0.2, 0.5, 0.95])
def test_noise_has_a_smaller_figure_than_stripes_of_the_same_energy(grey: float) -> None:
    noise = torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    figures = [
        flat_pattern(plain(grey), (plain(grey) + of_energy(change)).clamp(0, 1)).worst
        for change in (waves(4), waves(8), noise)
    ]
    assert figures[2] is not None
    assert all(figure is not None and figure > 2 * figures[2] for figure in figures[:2])


def test_stripes_of_colour_alone_are_seen_but_less_than_grey_ones() -> None:
    towards = np.linalg.solve(
        opponent(np.eye(3).reshape(3, 1, 3)).squeeze(1) - FLOOR * np.array([[1.0], [0], [0]]),
        np.array([0.0, 1.0, 0.0]),
    )  # linear sRGB that moves red-green alone
    light = linear(0.5)
    frequency = np.array(PIXELS_PER_DEGREE / 8)
    around = np.array((light + FLOOR) * WHITE)
    for amplitude in (0.005, 0.01):
        coloured = encoded(light + amplitude * torch.from_numpy(towards).float()[:, None, None] * waves(8))
        expected = amplitude / (light + FLOOR) * float(red_green_sensitivity(frequency, around))
        assert flat_pattern(plain(0.5), coloured).worst == pytest.approx(expected, rel=0.05)
    dim = np.array(30.0)
    assert red_green_sensitivity(frequency, dim) < luminance_sensitivity(frequency, dim)


def test_texture_is_no_flat_area_and_a_shading_is_one() -> None:
    texture = plain(0.5) + 0.1 * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    found = flat_pattern(texture, texture + of_energy(waves(4)))
    assert (found.worst, found.mean, found.wavelength, found.flat) == (None, None, None, 0)
    shading = torch.linspace(0.3, 0.7, SIDE).expand(3, SIDE, SIDE)
    assert flat_pattern(shading, shading + of_energy(waves(4))).flat == 1


def test_only_the_flat_half_counts() -> None:
    picture = plain(0.5, 192)
    picture[:, :, 96:] += 0.2 * torch.randn(3, 192, 96, generator=torch.Generator().manual_seed(3))
    changed = picture.clone()
    changed[:, :, 120:] += of_energy(waves(4, 192))[:, :, 120:]
    found = flat_pattern(picture, changed)
    assert 0.2 < found.flat < 0.6
    assert found.worst == 0
    assert found.wavelength is None


def test_a_change_of_brightness_is_no_pattern() -> None:
    assert flat_pattern(plain(0.5), plain(0.52)).worst == pytest.approx(0, abs=0.01)


def test_arrays_tensors_small_pictures_and_wrong_shapes() -> None:
    before, after = plain(0.5), plain(0.5) + of_energy(waves(4)).expand(3, -1, -1)
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in (before, after)]
    assert flat_pattern(*arrays) == flat_pattern(before, after)
    small = plain(0.5, WINDOW - 1)
    assert flat_pattern(small, small).worst is None
    exact = plain(0.5, WINDOW)
    assert flat_pattern(exact, exact).worst == 0
    with pytest.raises(UsageError, match="one size"):
        flat_pattern(before, before[:, :-1])
    with pytest.raises(UsageError, match="H, W, 3"):
        flat_pattern(before[None], before[None])
    with pytest.raises(UsageError, match="NaN"):
        flat_pattern(before, before * torch.nan)


def test_a_large_picture_is_sampled_up_to_its_edges() -> None:
    picture = plain(0.5, 2000)[:, :600]
    changed = picture.clone()
    changed[:, :, -WINDOW:] += of_energy(waves(6, 600))[:, :, :WINDOW]
    found = flat_pattern(picture, changed)
    assert found.worst is not None
    assert found.worst > 5
