"""Is it the subject? The normalised subject similarity s, over any image encoder.

s = (sim(generated, subject) - sim(class, subject)) / (sim(subject, subject) - sim(class, subject))

with sim the mean cosine over all pairs: 0 is any member of the class, 1 is the subject itself. The subject's
pictures must be held out: pictures that the attacked model was trained on measure memory, not likeness.
sim(subject, subject) is taken over pairs of two different pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure.intervals import percentile_interval

__all__ = [
    "Embedder",
    "Pairs",
    "SubjectSimilarity",
    "embed_all",
    "looks_at_faces",
    "mean_similarity",
    "packed",
    "pair_similarities",
    "pairs_of",
    "subject_similarity",
    "to_json",
    "unit",
    "unpacked",
]

MIN_GAP = 0.05
"""The least sim(subject, subject) - sim(class, subject) that s may be divided by."""

Matrix = NDArray[np.float64]


class Embedder(Protocol):
    """An image encoder: images [B,3,H,W] in [0,1] to unit vectors [B,D]."""

    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Pairs:
    """The cosines that one subject's s is made of."""

    generated: Matrix
    """[G,S], generated pictures against held-out pictures of the subject."""
    of_class: Matrix
    """[C,S], other members of the class against the subject."""
    subject: Matrix
    """[S,S], the subject against itself; the diagonal is never used."""
    faceless: int = 0
    """Generated pictures in which an encoder of faces found none. They count as s = 0."""


@dataclass(frozen=True)
class SubjectSimilarity:
    """s with its percentile bootstrap interval, what it was made of, and from how much."""

    value: float
    low: float
    high: float
    sim_generated: float
    """sim(generated, subject), mean over subjects."""
    sim_class: float
    sim_subject: float
    subjects: int
    n_generated: int
    n_subject: int
    n_class: int
    level: float
    resamples: int
    seed: int
    n_faceless: int = 0
    """Generated pictures without a face, for an encoder of faces. They count as s = 0."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n {self.n_generated}, seed {self.seed})"


@torch.no_grad()
def embed_all(embedder: Embedder, images: Tensor, batch_size: int = 64) -> Tensor:
    """Unit vectors [N,D], float64 on the CPU, of images [N,3,H,W] in [0,1], a batch at a time."""
    parts = [embedder(batch) for batch in torch.split(images, batch_size)]
    return unit(torch.cat(parts), faces=looks_at_faces(embedder))


def unit(vectors: Tensor, *, faces: bool = False) -> Tensor:
    """Vectors [N,D] at length 1, float64 on the CPU. faces: a row of NaN stays, a picture without a face.

    UsageError for other vectors that are zero or not finite.
    """
    vectors = vectors.double().cpu()
    norms = vectors.norm(dim=1, keepdim=True)
    judged = norms[~vectors.isnan().all(1)] if faces else norms
    if not bool(torch.isfinite(judged).all() and (judged > 0).all()):
        raise UsageError(
            "the encoder gave a zero or non-finite vector; use another encoder or check its weights"
        )
    found: Tensor = vectors / norms
    return found


def looks_at_faces(embedder: Embedder) -> bool:
    """Whether an embedder gives a row of NaN for a picture without a face."""
    return bool(getattr(embedder, "faces", False))


def pair_similarities(
    embedder: Embedder,
    generated: Tensor,
    subject: Tensor,
    of_class: Tensor,
    *,
    known: tuple[Tensor, Tensor] | None = None,
) -> Pairs:
    """All cosines between generated [G,3,H,W], held-out subject [S,3,H,W] and class pictures [C,3,H,W].

    known: the vectors (`embed_all`) of the subject and of the class, if they were embedded before.

    Raises UsageError without at least one generated, two held-out and one class picture.
    """
    for name, images, least in (("generated", generated, 1), ("subject", subject, 2), ("class", of_class, 1)):
        _check_count(name, "picture", len(images) if images.ndim == 4 else 0, least)
    s, c = known or (embed_all(embedder, subject), embed_all(embedder, of_class))
    return pairs_of(embed_all(embedder, generated), s, c)


def pairs_of(generated: Tensor, subject: Tensor, of_class: Tensor) -> Pairs:
    """All cosines of unit vectors [G,D], [S,D] and [C,D]. A row of NaN is a picture without a face.

    Such a picture of the subject or of the class is left out. A generated one counts as any member of the
    class does on average, so that its s is 0.

    Raises UsageError if there is not at least one generated, two held-out and one class picture with a face.
    """
    _check_count("generated", "picture", len(generated), 1)
    faceless = generated.isnan().all(1)
    s, c = (one[~one.isnan().all(1)] for one in (subject, of_class))
    kind = "picture" if len(s) == len(subject) and len(c) == len(of_class) else "picture with a face"
    _check_count("subject", kind, len(s), 2)
    _check_count("class", kind, len(c), 1)
    to_class = c @ s.T
    to_subject = to_class.mean(0, keepdim=True).repeat(len(generated), 1)
    to_subject[~faceless] = generated[~faceless] @ s.T
    return Pairs(to_subject.numpy(), to_class.numpy(), (s @ s.T).numpy(), int(faceless.sum()))


def _check_count(name: str, kind: str, count: int, least: int) -> None:
    if count < least:
        what = kind if least == 1 else kind.replace("picture", "pictures")
        raise UsageError(
            f"the similarity needs at least {least} {name} {what}, not {count}; give more pictures"
        )


def _weighted(
    pairs: Pairs, w_generated: Matrix, w_class: Matrix, w_subject: Matrix
) -> tuple[Matrix, Matrix, Matrix]:
    """sim(generated, subject), sim(class, subject), sim(subject, subject), each [R].

    The weights [R,G], [R,C], [R,S] say how often a replicate drew each picture. A subject picture drawn twice
    is not paired with itself; a replicate that drew a single one throughout keeps the whole sample's value.
    """

    def mean(w_left: Matrix, cosines: Matrix) -> Matrix:
        total = np.einsum("ri,ij,rj->r", w_left, cosines, w_subject, optimize=True)
        return np.asarray(total / (w_left.sum(1) * w_subject.sum(1)))

    off_diagonal = pairs.subject * (1 - np.eye(len(pairs.subject)))
    count = w_subject.sum(1) ** 2 - np.square(w_subject).sum(1)
    total = np.einsum("ri,ij,rj->r", w_subject, off_diagonal, w_subject, optimize=True)
    n = len(pairs.subject)
    whole = off_diagonal.sum() / (n * (n - 1))
    itself = np.where(count > 0, total / np.maximum(count, 1), whole)
    return mean(w_generated, pairs.generated), mean(w_class, pairs.of_class), itself


def _draws(rng: np.random.Generator, replicates: int, n: int) -> Matrix:
    """How often each of `n` pictures is drawn in `n` draws with replacement: [replicates,n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=replicates).astype(np.float64)


def subject_similarity(
    embedder: Embedder,
    *,
    generated: Tensor,
    subject: Tensor,
    of_class: Tensor,
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
    min_gap: float = MIN_GAP,
) -> SubjectSimilarity:
    """s of one subject: see `pair_similarities` for the pictures and `mean_similarity` for the rest."""
    pairs = pair_similarities(embedder, generated, subject, of_class)
    return mean_similarity([pairs], seed=seed, level=level, resamples=resamples, min_gap=min_gap)


def mean_similarity(
    subjects: Sequence[Pairs],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
    min_gap: float = MIN_GAP,
) -> SubjectSimilarity:
    """The mean of s over subjects, with its hierarchical percentile bootstrap interval.

    Each replicate draws subjects with replacement (if there are several), and for each of them its generated,
    held-out and class pictures. A replicate whose divisor falls below `min_gap` is divided by `min_gap`.
    Raises UsageError if the divisor of any subject is below `min_gap`: the encoder cannot tell the subject
    from its class, and s would be noise divided by almost zero.
    """
    if not subjects:
        raise UsageError("the similarity needs at least one subject; give a folder of its held-out pictures")
    rng = np.random.default_rng(seed)
    parts = np.empty((len(subjects), 3))
    values = np.empty(len(subjects))
    for i, pairs in enumerate(subjects):
        whole = (np.ones((1, len(m))) for m in (pairs.generated, pairs.of_class, pairs.subject))
        by_generated, by_class, by_subject = (float(x[0]) for x in _weighted(pairs, *whole))
        gap = by_subject - by_class
        if gap < min_gap:
            raise UsageError(
                f"the encoder does not tell the subject (similarity to itself {by_subject:.3f}) from its "
                f"class ({by_class:.3f}): the difference is below {min_gap:g}, too small to divide by; "
                "use another encoder, or check that the class pictures show other individuals"
            )
        parts[i] = by_generated, by_class, by_subject
        values[i] = (by_generated - by_class) / gap

    replicates = _replicates(subjects, rng, resamples, min_gap)
    low, high = percentile_interval(replicates, level)
    return SubjectSimilarity(
        value=float(values.mean()),
        low=low,
        high=high,
        sim_generated=float(parts[:, 0].mean()),
        sim_class=float(parts[:, 1].mean()),
        sim_subject=float(parts[:, 2].mean()),
        subjects=len(subjects),
        n_generated=sum(len(pairs.generated) for pairs in subjects),
        n_subject=sum(len(pairs.subject) for pairs in subjects),
        n_class=sum(len(pairs.of_class) for pairs in subjects),
        level=level,
        resamples=resamples,
        seed=seed,
        n_faceless=sum(pairs.faceless for pairs in subjects),
    )


def packed(pairs: Pairs) -> dict[str, list[str]]:
    """The cosines as text, a line a picture, in ten thousandths: for a results file."""
    return {
        name: [" ".join(str(round(float(v) * 10_000)) for v in row) for row in matrix]
        for name, matrix in (
            ("generated", pairs.generated), ("of_class", pairs.of_class), ("subject", pairs.subject),
        )
    }  # fmt: skip


def unpacked(texts: Mapping[str, Sequence[str]]) -> Pairs:
    """What `packed` made of them. KeyError or ValueError for other texts."""
    generated, of_class, subject = (
        np.array([[int(v) for v in row.split()] for row in texts[name]], dtype=np.float64) / 10_000
        for name in ("generated", "of_class", "subject")
    )
    return Pairs(generated, of_class, subject)


def to_json(found: Mapping[str, SubjectSimilarity]) -> str:
    """Indented JSON without NaN: the figures of one encoder, or of several by their names."""
    figures = {name: asdict(one) for name, one in found.items()}
    return json.dumps(
        next(iter(figures.values())) if len(figures) == 1 else figures,
        indent=2, ensure_ascii=False, allow_nan=False,
    )  # fmt: skip


def _replicates(
    subjects: Sequence[Pairs], rng: np.random.Generator, resamples: int, min_gap: float
) -> Matrix:
    """Bootstrap replicates [resamples] of the mean of s over subjects."""
    n = len(subjects)
    # How often each subject is drawn; one drawn k times contributes k independent redraws of its pictures.
    times = _draws(rng, resamples, n).astype(np.int64) if n > 1 else np.ones((resamples, 1), dtype=np.int64)
    total = np.zeros(resamples)
    for i, pairs in enumerate(subjects):
        for again in range(int(times[:, i].max())):
            drawn = np.flatnonzero(times[:, i] > again)
            weights = (
                _draws(rng, len(drawn), len(m)) for m in (pairs.generated, pairs.of_class, pairs.subject)
            )
            by_generated, by_class, by_subject = _weighted(pairs, *weights)
            total[drawn] += (by_generated - by_class) / np.maximum(by_subject - by_class, min_gap)
    return total / n
