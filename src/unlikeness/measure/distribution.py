"""How far two sets of pictures are apart as sets: Fréchet and kernel distances between their features.

Both take features x [N, D] and y [M, D] of any encoder and compute in float64. With Inception-v3 features
they are FID and KID. With others their values compare only among themselves, so a distance between two sets
of real pictures of the same sizes belongs beside each: it is what sampling alone amounts to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlikeness.errors import UsageError

__all__ = ["frechet_distance", "kernel_distance", "kernel_distance_subsets"]


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = x.detach().double().cpu(), y.detach().double().cpu()
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UsageError(f"features must be [N, D] and [M, D] of one D, not {[*x.shape]} and {[*y.shape]}")
    if len(x) < 2 or len(y) < 2:
        raise UsageError(
            f"a distance between sets needs 2 pictures or more in each, not {len(x)} and {len(y)}"
        )
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
