"""Two sets of pictures compared as sets: Fréchet and kernel distances, precision and recall.

All take features [N, D] and [M, D] of any encoder and compute in float64. With Inception-v3 features the
distances are FID and KID. With others, compare only values of one encoder and set size, and beside the value
for two sets of real pictures: the part that sampling alone causes.

Precision and recall (Kynkäänniemi et al. 2019): a set's manifold is the union of balls around its features,
each as wide as the distance to the k-th nearest other feature of the set. Precision is the share of generated
features inside the manifold of the real ones, recall the share of real ones inside that of the generated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlikeness.errors import UsageError

__all__ = ["frechet_distance", "kernel_distance", "kernel_distance_subsets", "precision_recall"]

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

    The trace of the root is the sum of the square roots of the eigenvalues of the symmetric
    Σ_x^½ Σ_y Σ_x^½, which has those of Σ_x Σ_y, so that nothing complex appears. Biased upwards where N is
    not large beside D: compare sets of equal sizes only.
    """
    x, y = _pair(x, y)
    cov_x, cov_y = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_x)
    root_x = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    middle = root_x @ cov_y @ root_x
    root_trace = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp(min=0).sqrt().sum()
    gap = (x.mean(0) - y.mean(0)).square().sum()
    return float(gap + cov_x.trace() + cov_y.trace() - 2 * root_trace)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """The unbiased squared MMD under k(a, b) = (a·b / D + 1)³ (Bińkowski et al. 2018, Eq. 4 and section 4).

    Zero in expectation for two samples of one distribution; it may then come out negative.
    """
    x, y = _pair(x, y)
    n, m, d = len(x), len(y), x.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / d + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x = (xx.sum() - xx.diagonal().sum()) / (n * (n - 1))
    within_y = (yy.sum() - yy.diagonal().sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * xy.mean())


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
