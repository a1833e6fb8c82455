"""Improved precision and recall (Kynkäänniemi et al. 2019): is what is drawn real, and is all of it drawn?

A set's manifold is the union of balls around its features, each as wide as the distance to the k-th nearest
other feature of the set. Precision is the share of generated features inside the manifold of the real ones,
recall the share of real ones inside that of the generated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlikeness.errors import UsageError

__all__ = ["precision_recall"]

_ROWS = 1024  # rows of the matrix of distances at a time: bounds the memory for large sets


def precision_recall(real: Tensor, generated: Tensor, *, k: int = 3) -> tuple[float, float]:
    """(precision, recall), each in [0, 1], of features real [N, D] and generated [M, D] (Eq. 1 and 2).

    Computed in float64. Both fall with the number of pictures: compare sets of equal sizes only, and beside
    two sets of one kind. UsageError for sets of k pictures or fewer, or of different D.
    """
    x, y = real.detach().double().cpu(), generated.detach().double().cpu()
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UsageError(f"features must be [N, D] and [M, D] of one D, not {[*x.shape]} and {[*y.shape]}")
    if k < 1 or min(len(x), len(y)) <= k:
        raise UsageError(
            f"precision and recall with k = {k} need {max(k, 1) + 1} pictures or more in each set, "
            f"not {len(x)} and {len(y)}"
        )
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise UsageError("the features hold values that are not finite; check the encoder and the pictures")
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
