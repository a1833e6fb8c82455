"""Drift, diversity and what they say of a model that has collapsed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.verify.quality import diversity, quality


def features(n: int, seed: int, *, spread: float = 1.0) -> Tensor:
    """Unit vectors around one direction."""
    x = spread * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) + torch.tensor(
        [2.0, 0, 0, 0]
    )
    return F.normalize(x.double(), dim=1)


def test_diversity_is_the_mean_distance_of_two_different_pictures() -> None:
    a, b = features(7, 1, spread=0.5), features(9, 2)

    def literal(x: Tensor) -> float:
        v = x.numpy()
        return float(np.mean([1 - v[i] @ v[j] for i in range(len(v)) for j in range(len(v)) if i != j]))

    found = diversity(a, b, seed=0)
    assert found.model == pytest.approx(literal(a))
    assert found.original == pytest.approx(literal(b))
    assert found.value == pytest.approx(literal(a) / literal(b))
    assert found.low < found.value < found.high
    assert diversity(a, b, seed=0) == found


def test_a_model_that_has_collapsed_is_seen() -> None:
    before, again = features(60, 3), features(60, 4)
    same = quality("a dog", features(60, 5), before, again, seed=0)
    gone = quality("a dog", features(60, 5, spread=0.05), before, again, seed=0)
    assert same.diversity.low < 1 < same.diversity.high
    assert same.drift.recall > 0.8
    assert gone.diversity.high < 0.2
    assert gone.drift.recall < 0.2
    assert gone.drift.precision > 0.8
    assert gone.drift.distance.frechet is not None
    assert same.sampling.distance.frechet is not None
    assert gone.drift.distance.frechet > 5 * same.sampling.distance.frechet
    assert gone.sampling == same.sampling


def test_real_pictures_give_a_drift_of_the_distance_to_them() -> None:
    real, before, again = features(80, 6), features(60, 7, spread=0.8), features(60, 8, spread=0.8)
    unchanged = quality("a dog", again, before, again, real, seed=0)
    worse = quality("a dog", features(60, 9, spread=0.3), before, again, real, seed=0)
    assert unchanged.real_drift == 0
    assert worse.real_drift is not None
    assert worse.real_drift > 0.5
    assert worse.n_real == 60
    assert quality("a dog", again, before, again, seed=0).real_drift is None


def test_few_pictures_have_no_frechet_distance() -> None:
    few = quality("a dog", features(6, 1), features(6, 2), features(6, 3), seed=0)
    assert few.drift.distance.frechet is None
    assert np.isfinite(few.drift.distance.kernel)
    assert few.drift.distance.kernel_spread > 1e-6


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(UsageError, match="sets of one size"):
        quality("a dog", features(5, 1), features(6, 2), features(6, 3), seed=0)
    with pytest.raises(UsageError, match="two class pictures"):
        diversity(features(1, 1), features(6, 2), seed=0)
    with pytest.raises(UsageError, match="all class pictures of the original are alike"):
        diversity(features(6, 1), features(1, 2).expand(6, 4), seed=0)
