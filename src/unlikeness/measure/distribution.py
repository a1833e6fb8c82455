"""Two sets of pictures compared as sets: Fréchet and kernel distances, precision and recall.

All take features [N, D] and [M, D] of any encoder and compute in float64. With Inception-v3 features the
distances are FID and KID. With others, compare only values of one encoder and set size, and beside the value
for two sets of real pictures: the part that sampling alone causes.

Precision and recall (Kynkäänniemi et al. 2019): a set's manifold is the union of balls around its features,
each as wide as the distance to the k-th nearest other feature of the set. Precision is the share of generated
features inside the manifold of the real ones, recall the share of real ones inside that of the generated.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure.intervals import Interval, percentile_interval

__all__ = [
    "frechet_distance", "frechet_interval", "kernel_distance", "kernel_distance_subsets", "kernel_interval",
    "precision_recall",
]  # fmt: skip

_ROWS = 1024
"""Rows of the matrix of distances at a time, which bounds the memory for large sets."""


def _pair(
    x: Tensor, y: Tensor, what: str = "a distance between sets", least: int = 2
) -> tuple[Tensor, Tensor]:
    x, y = x.detach().double().cpu(), y.detach().double().cpu()
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UsageError(f"features must be [N, D] and [M, D] of one D, not {[*x.shape]} and {[*y.shape]}")
    if min(len(x), len(y)) < least:
        raise UsageError(f"{what} needs {least} pictures or more in each set, not {len(x)} and {len(y)}")
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise UsageError("the features hold values that are not finite; check the encoder and the pictures")
    return x, y


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """‖μ_x − μ_y‖² + tr(Σ_x + Σ_y − 2 (Σ_x Σ_y)^½) (Heusel et al. 2017, Eq. 6), Σ with N − 1.

    The trace of the root is the sum of the singular values of the centred X Yᵀ, over ((N − 1)(M − 1))^½:
    their squares are the eigenvalues of Σ_x Σ_y. Biased upwards where N is not large beside D: compare sets
    of equal sizes only.
    """
    return _frechet(*_pair(x, y))


def _frechet(x: Tensor, y: Tensor) -> float:
    gap = (x.mean(0) - y.mean(0)).square().sum()
    x, y = ((one - one.mean(0)) / (len(one) - 1) ** 0.5 for one in (x, y))
    a, b = (torch.linalg.qr(one, mode="r").R if len(one) > one.shape[1] else one for one in (x, y))
    return float(gap + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum())


def frechet_interval(
    x: Tensor, y: Tensor, *, seed: int, level: float = 0.95, resamples: int = 100
) -> Interval:
    """`frechet_distance` with its bootstrap interval: pictures of both sets are drawn with replacement.

    A drawn set repeats pictures, which raises the distance. The replicates are therefore moved to have their
    mean at the value. The bias of the value itself is not in the interval.
    """
    x, y = _pair(x, y)
    rng = np.random.default_rng(seed)
    value = _frechet(x, y)
    found = np.array(
        [_frechet(*(one[torch.from_numpy(rng.integers(len(one), size=len(one)))] for one in (x, y)))
         for _ in range(resamples)]
    )  # fmt: skip
    low, high = percentile_interval(found - found.mean() + value, level)
    return Interval(value, max(low, 0.0), high, len(x), 1, level, resamples, seed)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """The unbiased squared MMD under k(a, b) = (a·b / D + 1)³ (Bińkowski et al. 2018, Eq. 4 and section 4).

    Zero in expectation for two samples of one distribution; it may then come out negative.
    """
    x, y = _pair(x, y)
    return float(_kernel_distances(x, y, x.new_ones(1, len(x)), y.new_ones(1, len(y))))


def _kernel_distances(x: Tensor, y: Tensor, w_x: Tensor, w_y: Tensor) -> Tensor:
    """[R]: the distance of sets that hold each picture as often as the weights [R, N] and [R, M] say.

    A picture is never paired with itself. NaN for a set that holds one picture alone.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor, w: Tensor) -> Tensor:
        total = ((w @ kernel(a, a).fill_diagonal_(0)) * w).sum(1)
        return total / (w.sum(1).square() - w.square().sum(1))

    across = ((w_x @ kernel(x, y)) * w_y).sum(1) / (w_x.sum(1) * w_y.sum(1))
    return within(x, w_x) + within(y, w_y) - 2 * across


def kernel_interval(
    x: Tensor, y: Tensor, *, seed: int, level: float = 0.95, resamples: int = 1000
) -> Interval:
    """`kernel_distance` with its bootstrap interval: pictures of both sets are drawn with replacement."""
    x, y = _pair(x, y)
    rng = np.random.default_rng(seed)
    w_x, w_y = (
        torch.from_numpy(rng.multinomial(n, np.full(n, 1 / n), size=resamples)).double()
        for n in (len(x), len(y))
    )
    found = _kernel_distances(x, y, w_x, w_y)
    low, high = percentile_interval(found[found.isfinite()].numpy(), level)
    return Interval(kernel_distance(x, y), low, high, len(x), 1, level, resamples, seed)


def kernel_distance_subsets(
    x: Tensor, y: Tensor, *, seed: int, size: int = 256, count: int = 100
) -> tuple[float, float]:
    """Mean and standard deviation of `kernel_distance` over random subsets of `size` pictures of each set.

    The published way to give KID (with subsets of 1,000). A smaller set lowers `size` to its own.
    """
    x, y = _pair(x, y)
    size = min(size, len(x), len(y))
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor(
        [
            kernel_distance(
                x[torch.randperm(len(x), generator=generator)[:size]],
                y[torch.randperm(len(y), generator=generator)[:size]],
            )
            for _ in range(count)
        ],
        dtype=torch.float64,
    )
    return float(values.mean()), float(values.std(correction=0))


def precision_recall(real: Tensor, generated: Tensor, *, k: int = 3) -> tuple[float, float]:
    """(precision, recall), each in [0, 1], of features real [N, D] and generated [M, D] (Eq. 1 and 2).

    Computed in float64. Both fall with the number of pictures: compare sets of equal sizes only, and beside
    two sets of one kind. UsageError for sets of k pictures or fewer, or of different D.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    x, y = _pair(real, generated, f"a comparison with k = {k}", k + 1)
    return _inside(y, x, _radii(x, k)), _inside(x, y, _radii(y, k))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: Tensor, k: int) -> Tensor:
    """[N]: the distance of each point to its k-th nearest neighbour; itself, at distance 0, is the first."""
    return torch.cat(
        [_distances(part, points).kthvalue(k + 1, dim=1).values for part in torch.split(points, _ROWS)]
    )


def _inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """The share of points that lie in any ball."""
    found = [(_distances(part, centres) <= radii).any(1) for part in torch.split(points, _ROWS)]
    return float(torch.cat(found).double().mean())
