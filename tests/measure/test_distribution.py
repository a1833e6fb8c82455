"""Distances between sets of pictures, against the literal formulas."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from unlikeness.errors import UsageError
from unlikeness.measure.distribution import frechet_distance, kernel_distance, kernel_distance_subsets


def features(n: int, d: int = 6, *, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99))
    return shift + scale * torch.randn(n, d, generator=generator) @ mix


def test_frechet_distance_is_the_published_formula() -> None:
    x, y = features(80, seed=1), features(60, seed=2, shift=0.4, scale=1.3)
    a, b = x.double().numpy(), y.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    literal = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root.real)
    assert frechet_distance(x, y) == pytest.approx(literal, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(literal, rel=1e-9)


def test_frechet_distance_of_a_set_to_itself_is_zero() -> None:
    x = features(50, seed=3)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 2) == pytest.approx(4 * 6, rel=1e-6)  # only the means differ
    few = features(4, 20, seed=4)  # fewer pictures than dimensions: a singular covariance
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-4)


def test_frechet_distance_in_one_dimension() -> None:
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [6.0]])  # variances 2 and 18
    assert frechet_distance(x, y) == pytest.approx((1 - 3) ** 2 + 2 + 18 - 2 * 6)


def test_kernel_distance_is_the_published_formula() -> None:
    x, y = features(7, 3, seed=5), features(5, 3, seed=6, shift=0.5)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a.double() @ b.double() / 3 + 1) ** 3)

    within_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * between, rel=1e-9)


def test_kernel_distance_is_unbiased() -> None:
    """Small sets of one distribution: zero on average, not upwards of it."""
    same = [
        kernel_distance(torch.randn(10, 4, generator=g), torch.randn(10, 4, generator=g))
        for g in (torch.Generator().manual_seed(i) for i in range(400))
    ]
    assert abs(np.mean(same)) < 3 * np.std(same) / 20
    assert min(same) < 0


def test_subsets_agree_with_the_whole() -> None:
    x, y = features(200, seed=7), features(200, seed=8, shift=0.5)
    mean, spread = kernel_distance_subsets(x, y, seed=0, size=100, count=50)
    assert spread > 0
    assert mean == pytest.approx(kernel_distance(x, y), abs=4 * spread / 50**0.5)
    assert kernel_distance_subsets(x, y, seed=0, size=100, count=50) == (mean, spread)
    whole, none = kernel_distance_subsets(x, y, seed=0, size=999, count=3)
    assert whole == pytest.approx(kernel_distance(x, y))
    assert none == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(UsageError, match="of one D"):
        frechet_distance(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(UsageError, match="2 pictures or more"):
        kernel_distance(torch.zeros(1, 3), torch.zeros(4, 3))
    with pytest.raises(UsageError, match="not finite"):
        frechet_distance(torch.full((4, 3), torch.nan), torch.zeros(4, 3))
