"""The interval says how far a mean can be trusted, and says so reproducibly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unlikeness.errors import UsageError
from unlikeness.measure import bootstrap_mean


def test_the_value_is_the_mean_over_subjects_not_over_pictures() -> None:
    interval = bootstrap_mean([[0.0] * 9, [1.0]], seed=0)
    assert interval.value == 0.5
    assert (interval.n, interval.subjects) == (10, 2)


def test_same_seed_same_interval_and_it_is_recorded() -> None:
    figures = [list(np.random.default_rng(1).normal(size=20))]
    assert bootstrap_mean(figures, seed=7) == bootstrap_mean(figures, seed=7)
    assert bootstrap_mean(figures, seed=7).seed == 7
    assert bootstrap_mean(figures, seed=7).low != bootstrap_mean(figures, seed=8).low


def test_one_group_matches_the_normal_approximation() -> None:
    figures = np.random.default_rng(2).normal(loc=3.0, scale=2.0, size=200)
    interval = bootstrap_mean([list(figures)], seed=0)
    half = 1.96 * figures.std() / math.sqrt(figures.size)
    assert interval.low == pytest.approx(figures.mean() - half, abs=0.05)
    assert interval.high == pytest.approx(figures.mean() + half, abs=0.05)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(100):
        interval = bootstrap_mean([list(rng.normal(size=30))], seed=trial, resamples=400)
        covered += interval.low <= 0 <= interval.high
    assert 86 <= covered <= 100  # 95 expected, slightly fewer for a percentile interval of 30


def test_subjects_that_differ_widen_it_more_than_pictures_do() -> None:
    """Pictures of few subjects are not independent: the hierarchy must show it."""
    rng = np.random.default_rng(4)
    groups = [list(centre + 0.01 * rng.normal(size=50)) for centre in (0.0, 1.0, 2.0, 3.0)]
    by_subject = bootstrap_mean(groups, seed=0)
    pooled = bootstrap_mean([[figure for group in groups for figure in group]], seed=0)
    assert by_subject.high - by_subject.low > 3 * (pooled.high - pooled.low)


@pytest.mark.parametrize("groups", [[], [[]], [[1.0], []], [[math.nan]], [[1.0, math.inf]]])
def test_nothing_to_average_is_refused(groups: list[list[float]]) -> None:
    with pytest.raises(UsageError, match="at least one finite figure"):
        bootstrap_mean(groups, seed=0)


def test_a_level_outside_0_to_1_is_refused() -> None:
    with pytest.raises(UsageError, match="95"):
        bootstrap_mean([[1.0, 2.0]], seed=0, level=95)
