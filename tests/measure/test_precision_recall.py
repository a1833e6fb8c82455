"""Precision and recall against a literal reading of the paper, and where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from unlikeness.errors import UsageError
from unlikeness.measure.distribution import precision_recall


def cloud(n: int, seed: int, *, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    return shift + scale * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def literal(points: list[list[float]], centres: list[list[float]], k: int) -> float:
    """The mean of f(φ, Φ) of Eq. 1 over φ in `points`, Φ = `centres`."""

    def f(phi: list[float]) -> int:
        for i, centre in enumerate(centres):
            others = sorted(math.dist(centre, other) for j, other in enumerate(centres) if j != i)
            if math.dist(phi, centre) <= others[k - 1]:
                return 1
        return 0

    return sum(f(phi) for phi in points) / len(points)


@pytest.mark.parametrize("k", [1, 3])
def test_is_the_published_formula(k: int) -> None:
    real, generated = cloud(40, 1), cloud(30, 2, shift=0.8, scale=0.6)
    precision, recall = precision_recall(real, generated, k=k)
    a, b = real.double().tolist(), generated.double().tolist()
    assert precision == pytest.approx(literal(b, a, k))
    assert recall == pytest.approx(literal(a, b, k))
    assert 0 < recall < precision < 1


def test_identical_sets_have_all_and_disjoint_sets_nothing() -> None:
    x = cloud(20, 3)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 100) == (0.0, 0.0)


def test_a_model_that_draws_one_thing_keeps_precision_and_loses_recall() -> None:
    real = cloud(200, 4)
    precision, recall = precision_recall(real, cloud(200, 5, scale=0.05))
    assert precision > 0.95
    assert recall < 0.05


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(UsageError, match="needs 4 pictures"):
        precision_recall(cloud(3, 1), cloud(9, 2))
    with pytest.raises(UsageError, match="of one D"):
        precision_recall(torch.zeros(9, 2), torch.zeros(9, 3))
    with pytest.raises(UsageError, match="not finite"):
        precision_recall(torch.full((9, 2), math.nan), torch.zeros(9, 2))
