"""Intervals: percentile bootstrap for means over subjects and pictures, Wilson for shares of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Interval", "Share", "bootstrap_mean", "percentile_interval", "share"]


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile bootstrap interval and what it was computed from."""

    value: float
    low: float
    high: float
    n: int
    """Pictures (the smallest unit that was resampled)."""
    subjects: int
    """Groups of pictures; with more than one, groups were resampled as well."""
    level: float
    resamples: int
    seed: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n {self.n}, seed {self.seed})"


def percentile_interval(replicates: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The central `level` (0 to 1) of the bootstrap replicates, Efron's percentile interval."""
    _check_level(level)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_mean(
    groups: Sequence[Sequence[float]], *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """The mean over subjects of the mean over each subject's pictures, with its interval.

    Every subject weighs the same, however many pictures it has. Each replicate draws as many subjects as
    there are, with replacement, and for each of them as many of its pictures as it has. With a single group
    only its pictures are drawn. Raises UsageError if there is no figure, or an empty or non-finite group.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    if not arrays or any(a.ndim != 1 or a.size == 0 or not np.isfinite(a).all() for a in arrays):
        raise UsageError(
            "a bootstrap needs at least one group of pictures, each with at least one finite figure"
        )
    rng = np.random.default_rng(seed)
    # One mean per (replicate, drawn subject); a subject drawn twice draws its pictures anew.
    replicates = np.empty(resamples)
    for i in range(resamples):
        drawn = rng.integers(len(arrays), size=len(arrays)) if len(arrays) > 1 else [0]
        replicates[i] = np.mean(
            [arrays[j][rng.integers(arrays[j].size, size=arrays[j].size)].mean() for j in drawn]
        )
    low, high = percentile_interval(replicates, level)
    return Interval(
        value=float(np.mean([a.mean() for a in arrays])),
        low=low,
        high=high,
        n=sum(a.size for a in arrays),
        subjects=len(arrays),
        level=level,
        resamples=resamples,
        seed=seed,
    )


@dataclass(frozen=True)
class Share:
    """A share of `n` pictures (0 to 1), with its Wilson score interval."""

    value: float
    low: float
    high: float
    n: int
    level: float

    def __str__(self) -> str:
        return f"{self.value:.0%}"


def share(seen: Tensor, *, level: float = 0.95) -> Share:
    """The share of true values in bool [N], one a picture.

    Wilson (1927): unlike a bootstrap, it does not claim certainty when all of a few pictures agree.
    UsageError without a picture, or for a level that is not between 0 and 1.
    """
    n = seen.numel()
    if not n:
        raise UsageError("a share needs at least one picture")
    _check_level(level)
    p, z = float(seen.double().mean()), NormalDist().inv_cdf((1 + level) / 2)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Share(p, max(middle - half, 0.0), min(middle + half, 1.0), n, level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval lies between 0 and 1, not {level}; 0.95 is usual")
