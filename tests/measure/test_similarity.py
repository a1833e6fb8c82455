"""s is 1 for the subject itself, 0 for any member of its class, and honest about what it does not know."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure import Pairs, mean_similarity, pair_similarities, subject_similarity
from unlikeness.measure.report import to_json


def embedder(images: Tensor) -> Tensor:
    """A toy encoder: the unit vector along a picture's mean colour."""
    return torch.nn.functional.normalize(images.mean((2, 3)), dim=1)


def coloured(colour: tuple[float, float, float], n: int, spread: float = 0.05, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor(colour) + spread * torch.randn(n, 3, generator=generator)
    return centres.clamp(0, 1).view(n, 3, 1, 1).expand(n, 3, 4, 4)


RED, GREEN, BLUE = (0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9)


def test_the_subject_scores_1_and_its_class_0() -> None:
    held_out, others = coloured(RED, 12, seed=1), coloured(BLUE, 30, seed=2)
    same = subject_similarity(
        embedder, generated=coloured(RED, 30, seed=3), subject=held_out, of_class=others, seed=0
    )
    other = subject_similarity(
        embedder, generated=coloured(BLUE, 30, seed=4), subject=held_out, of_class=others, seed=0
    )
    assert same.value == pytest.approx(1.0, abs=0.02)
    assert other.value == pytest.approx(0.0, abs=0.02)
    assert same.low <= same.value <= same.high
    assert (same.n_generated, same.n_subject, same.n_class, same.subjects, same.seed) == (30, 12, 30, 1, 0)


def test_it_is_the_formula_over_all_pairs_and_no_self_pair() -> None:
    generated, held_out, others = (
        coloured(GREEN, 3, 0.2, 5),
        coloured(RED, 4, 0.2, 6),
        coloured(BLUE, 5, 0.2, 7),
    )
    g, s, c = (embedder(x).double().numpy() for x in (generated, held_out, others))
    by_generated = np.mean([a @ b for a in g for b in s])
    by_class = np.mean([a @ b for a in c for b in s])
    itself = np.mean([s[i] @ s[j] for i in range(4) for j in range(4) if i != j])
    result = subject_similarity(embedder, generated=generated, subject=held_out, of_class=others, seed=0)
    assert result.value == pytest.approx((by_generated - by_class) / (itself - by_class), abs=1e-6)
    assert result.sim_subject == pytest.approx(itself, abs=1e-6)


def test_no_batch_size_changes_the_pairs() -> None:
    many = coloured(RED, 150, 0.3, 8)
    pairs = pair_similarities(embedder, many, many[:3], many[:2])
    assert pairs.generated.shape == (150, 3)
    assert pairs.generated == pytest.approx((embedder(many).double() @ embedder(many[:3]).double().T).numpy())


def test_an_encoder_that_cannot_tell_is_refused() -> None:
    grey = coloured((0.5, 0.5, 0.5), 6, 0.0)
    with pytest.raises(UsageError, match="too small to divide by"):
        subject_similarity(embedder, generated=grey, subject=grey, of_class=grey, seed=0)


@pytest.mark.parametrize(("generated", "subject", "of_class"), [(0, 2, 1), (1, 1, 1), (1, 2, 0)])
def test_too_few_pictures_are_refused(generated: int, subject: int, of_class: int) -> None:
    reds = coloured(RED, 3)
    with pytest.raises(UsageError, match="at least"):
        pair_similarities(embedder, reds[:generated], reds[:subject], reds[:of_class])


def test_a_broken_encoder_is_refused() -> None:
    reds = coloured(RED, 3)
    with pytest.raises(UsageError, match="non-finite"):
        pair_similarities(lambda x: x.mean((2, 3)) * math.nan, reds, reds, reds)


def made_up(s: float, n: int = 20, spread: float = 0.05, seed: int = 0) -> Pairs:
    """Cosines of a subject whose s is about `s`."""
    rng = np.random.default_rng(seed)
    return Pairs(
        generated=0.2 + 0.6 * s + spread * rng.normal(size=(n, 6)),
        of_class=0.2 + spread * rng.normal(size=(n, 6)),
        subject=0.8 + 0.0 * rng.normal(size=(6, 6)),
    )


def test_the_mean_over_subjects_weighs_each_the_same() -> None:
    both = mean_similarity([made_up(0.0, n=100, seed=1), made_up(1.0, n=5, seed=2)], seed=0)
    assert both.value == pytest.approx(0.5, abs=0.05)
    assert both.subjects == 2
    assert both.n_generated == 105


def test_the_interval_is_reproducible_and_widens_with_differing_subjects() -> None:
    alike = [made_up(0.5, seed=i) for i in range(6)]
    unlike = [made_up(i / 5, seed=i) for i in range(6)]
    assert mean_similarity(alike, seed=3) == mean_similarity(alike, seed=3)
    narrow, wide = mean_similarity(alike, seed=3), mean_similarity(unlike, seed=3)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    # Six subjects evenly from 0 to 1: the standard error of their mean is 0.34 / sqrt(6).
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * 0.342 / math.sqrt(6), rel=0.15)


def test_two_held_out_pictures_are_enough_for_an_interval() -> None:
    """Half of the replicates draw one of them twice, and must not pair it with itself."""
    result = subject_similarity(
        embedder,
        generated=coloured(RED, 10, seed=9),
        subject=coloured(RED, 2, seed=10),
        of_class=coloured(BLUE, 10, seed=11),
        seed=0,
    )
    assert all(math.isfinite(x) for x in (result.value, result.low, result.high))
    assert result.high < 1.2


def test_the_report_is_json() -> None:
    read = json.loads(to_json(mean_similarity([made_up(0.5)], seed=4)))
    assert read["seed"] == 4
    assert read["low"] <= read["value"] <= read["high"]
    assert read["n_generated"] == 20
