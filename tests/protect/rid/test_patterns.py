"""What a training sees of regular patterns: a lattice counts, noise of the same energy hardly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlikeness.protect.rid.train import patterns

EIGHT = torch.tensor([8.0])
SIDE = 128


def grating(period: float, amplitude: float) -> Tensor:
    """A grey grating along x, [1, 3, SIDE, SIDE]; amplitude in n/255."""
    x = torch.arange(SIDE) * (2 * math.pi / period)
    return (x.sin() * amplitude / 255).expand(1, 3, SIDE, SIDE).contiguous()


def noise(like: Tensor, seed: int = 0) -> Tensor:
    """Of the same energy."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    return drawn * like.square().mean().sqrt()


def grey(contrast: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.5 + contrast * torch.randn(1, 1, SIDE, SIDE, generator=generator).expand(1, 3, SIDE, SIDE)


def test_a_grating_is_more_visible_than_noise_of_its_energy_and_less_on_texture() -> None:
    lines = grating(4, 4.0)
    flat, textured = (float(patterns.visible(lines, grey(c)).mean()) for c in (0.0, 0.2))
    scattered = float(patterns.visible(noise(lines), grey()).mean())
    assert flat > 3 * scattered
    assert flat > 5 * textured
    assert float(patterns.regular(lines, grey(), EIGHT)) > 3
    assert float(patterns.regular(grating(4, 0.1), grey(), EIGHT)) == 0


def test_the_visible_amplitude_grows_with_the_pattern_and_peaks_at_medium_frequencies() -> None:
    one, two = (float(patterns.visible(grating(6, a), grey()).mean()) for a in (1.0, 2.0))
    assert math.isclose(two, 2 * one, rel_tol=1e-3)
    fine, medium, coarse = (float(patterns.visible(grating(p, 1.0), grey()).mean()) for p in (2.2, 6, 31))
    assert medium > fine
    assert medium > coarse


def test_a_change_at_another_budget_is_judged_as_if_at_eight() -> None:
    lines = grating(4, 2.0)
    half = patterns.regular(lines, grey(), torch.tensor([4.0]))
    assert torch.isclose(half, patterns.regular(2 * lines, grey(), EIGHT))


def test_what_repeats_in_every_cell_is_told_from_noise() -> None:
    cell = torch.randn(1, 3, patterns.CELL, patterns.CELL, generator=torch.Generator().manual_seed(2))
    lattice = (cell * 4 / 255).repeat(1, 1, SIDE // patterns.CELL, SIDE // patterns.CELL)
    assert float(patterns.repeated(lattice, EIGHT)) > 0.8
    assert float(patterns.repeated(noise(lattice), EIGHT)) < 0.01
    assert float(patterns.repeated(torch.zeros_like(lattice), EIGHT)) == 0


def test_there_is_a_gradient_even_without_a_change() -> None:
    for delta in (torch.zeros(1, 3, SIDE, SIDE), grating(4, 4.0)):
        leaf = delta.requires_grad_()
        total = patterns.regular(leaf, grey(), EIGHT) + patterns.repeated(leaf, EIGHT)
        (gradient,) = torch.autograd.grad(total, leaf)
        assert gradient.isfinite().all()
