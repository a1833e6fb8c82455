"""In how many pictures is something seen? A share, with an interval that holds for few of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from torch import Tensor

from unlikeness.errors import UsageError

__all__ = ["Share", "share"]


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
    """Of pictures in which it was seen or not: bool [N].

    Wilson (1927): unlike a bootstrap, it does not claim certainty when all of a few pictures agree.
    UsageError without a picture, or for a level that is not between 0 and 1.
    """
    n = seen.numel()
    if not n:
        raise UsageError("a share needs at least one picture")
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval lies between 0 and 1, not {level}; 0.95 is usual")
    p, z = float(seen.double().mean()), NormalDist().inv_cdf((1 + level) / 2)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Share(p, max(middle - half, 0.0), min(middle + half, 1.0), n, level)
