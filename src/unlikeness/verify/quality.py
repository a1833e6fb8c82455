"""Quality: how far a model's images of the class have drifted from the original's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure.distribution import frechet_distance, kernel_distance_subsets, precision_recall
from unlikeness.measure.intervals import Share, percentile_interval
from unlikeness.seeds import QUALITY
from unlikeness.verify.settings import VerifySettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress

__all__ = ["Distance", "Diversity", "Drift", "Quality", "diversity", "drift", "generate_class", "quality"]


@dataclass(frozen=True)
class Diversity:
    """The mean cosine distance between two class images, as a share of the original's."""

    value: float
    low: float
    high: float
    model: float
    """The mean distance itself."""
    original: float


@dataclass(frozen=True)
class Distance:
    """Distances between two sets of class images in the encoder's space.

    frechet: None with fewer images than twice the dimensions of that space, where it is mostly bias.
    """

    frechet: float | None
    kernel: float
    kernel_spread: float
    """Standard deviation over random subsets of half the pictures."""


@dataclass(frozen=True)
class Drift:
    """One set of images against another of the same size. precision, recall: k = 3."""

    distance: Distance
    precision: float
    recall: float


@dataclass(frozen=True)
class Quality:
    """Images of the class prompt.

    Attributes:
        drift: the model's against the original's. sampling: other images of the original against the same:
            the part that sampling alone causes.
        model_to_real, original_to_real: against real pictures of the class, if given.
        `notice`, `notice_before`: share of the model's and the original's images with the protective output.
    """

    prompt: str
    n: int
    drift: Drift
    sampling: Drift
    diversity: Diversity
    model_to_real: Drift | None = None
    original_to_real: Drift | None = None
    n_real: int = 0
    notice: Share | None = None
    notice_before: Share | None = None

    @property
    def real_drift(self) -> float | None:
        """Growth of the Fréchet distance to real pictures over the original's: 0.15 is 15 % more."""
        if self.model_to_real is None or self.original_to_real is None:
            return None
        now, before = self.model_to_real.distance.frechet, self.original_to_real.distance.frechet
        return None if now is None or not before else now / before - 1


def generate_class(
    model: TextToImage, prompt: str, count: int, settings: VerifySettings, *, series: int,
    progress: Progress | None = None,
) -> Tensor:  # fmt: skip
    """`count` images of the class prompt; each `series` has seeds of its own."""
    first = QUALITY + 1_000_000 * settings.seed + 100_000 * series
    return model.generate(
        [prompt], seeds=range(first, first + count), steps=settings.solver_steps,
        guidance=settings.guidance, progress=progress,
    )  # fmt: skip


def diversity(
    model: Tensor, original: Tensor, *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Diversity:
    """From unit vectors [N, D] and [M, D]; the interval redraws the images of both.

    An image that is drawn twice is not paired with itself. UsageError with fewer than two images, or if the
    original's are all alike.
    """
    if min(len(model), len(original)) < 2:
        raise UsageError("diversity needs two class pictures or more of each model; raise quality_pictures")
    distances = [1 - (x @ x.T).numpy() for x in (model.double(), original.double())]
    now, before = (_mean_distance(d, np.ones((1, len(d))))[0] for d in distances)
    if before < 1e-9:
        raise UsageError("all class pictures of the original are alike, so that no diversity can be lost")
    rng = np.random.default_rng(seed)
    a, b = (
        _mean_distance(d, rng.multinomial(len(d), np.full(len(d), 1 / len(d)), resamples).astype(float))
        for d in distances
    )
    low, high = percentile_interval(a / np.maximum(b, 1e-9), level)
    return Diversity(float(now / before), low, high, float(now), float(before))


def _mean_distance(distances: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R] means over pairs of two different pictures, drawn as often as weights [R, N] say."""
    off = distances * (1 - np.eye(len(distances)))
    pairs = weights.sum(1) ** 2 - np.square(weights).sum(1)
    return np.asarray(((weights @ off) * weights).sum(1) / np.maximum(pairs, 1))


def drift(of: Tensor, to: Tensor, *, seed: int) -> Drift:
    """Features `of` [N, D] against `to` [M, D], both cut to the smaller number."""
    n = min(len(of), len(to))
    of, to = of[:n], to[:n]
    kernel, spread = kernel_distance_subsets(of, to, seed=seed, size=max(n // 2, 2))
    frechet = frechet_distance(of, to) if n >= 2 * of.shape[1] else None
    precision, recall = precision_recall(to, of)
    return Drift(Distance(frechet, kernel, spread), precision, recall)


def quality(
    prompt: str, model: Tensor, original: Tensor, again: Tensor, real: Tensor | None = None, *, seed: int,
    shares: tuple[Share, Share] | None = None,
) -> Quality:  # fmt: skip
    """From unit vectors of images at `prompt`: the model's, and two sets of the original's, all [N, D].

    real: [R, D] of real pictures of the class, used from R = 4 on. shares: of the model's images and of the
    original's first set, with the protective output.
    """
    if len({len(x) for x in (model, original, again)}) > 1:
        raise UsageError("drift is measured between sets of one size")
    to_real = None
    if real is not None and len(real) > 3:
        to_real = drift(model, real, seed=seed), drift(again, real, seed=seed)
    return Quality(
        prompt,
        len(model),
        drift(model, original, seed=seed),
        drift(again, original, seed=seed),
        diversity(model, torch.cat([original, again]), seed=seed),
        model_to_real=to_real and to_real[0],
        original_to_real=to_real and to_real[1],
        n_real=0 if real is None or to_real is None else min(len(real), len(model)),
        notice=shares and shares[0],
        notice_before=shares and shares[1],
    )
