"""The pieces of the toybox's quality: pairs, shares and tables, on a tiny model and a reader of the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_model
from torch import Tensor

from benchmarks import common, toybox_quality
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS


class Answers:
    """A classifier that answers as it is told, and finds features in the colours."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = wrong

    def read(self, images: Tensor) -> tuple[list[str], list[str]]:
        wanted = [toybox_quality.PROMPTS[i % len(toybox_quality.PROMPTS)] for i in range(len(images))]
        nouns = ["nothing" if i < self.wrong else noun for i, (noun, _) in enumerate(wanted)]
        return nouns, [context for _, context in wanted]

    def features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def test_renders_take_all_prompts_in_turn_and_meet_in_no_part() -> None:
    images, wanted = toybox_quality.renders(49, 0, 0)
    assert images.shape == (49, 3, 64, 64)
    assert len(set(wanted)) == 48 == len(CLASS_NOUNS) * len(CONTEXTS)
    assert wanted[48] == wanted[0]
    assert not torch.equal(images[48], images[0])
    again, _ = toybox_quality.renders(2, 0, 0)
    other, _ = toybox_quality.renders(2, 0, 1)
    assert torch.equal(again, images[:2])
    assert not torch.equal(other, images[:2])


def test_reading_counts_what_is_wrong() -> None:
    images, wanted = toybox_quality.renders(20, 0, 0)
    found = toybox_quality.reading(Answers(wrong=5), images, wanted, 0)
    assert found["wrong_class"]["value"] == 0.25
    assert found["wrong_class"]["low"] < 0.25 < found["wrong_class"]["high"]
    assert found["wrong_context"]["value"] == 0
    assert found["n"] == 20


def pairwise(same: Sequence[float], different: Sequence[float]) -> float:
    return sum((a > b) + (a == b) / 2 for a in same for b in different) / (len(same) * len(different))


def test_auc_is_the_share_of_pairs_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    same = torch.randint(3, 12, (30,), generator=generator).double()
    different = torch.randint(0, 9, (40,), generator=generator).double()
    assert toybox_quality.auc(same, different) == pytest.approx(pairwise(same.tolist(), different.tolist()))
    assert toybox_quality.auc(torch.tensor([2.0]), torch.tensor([1.0])) == 1
    assert toybox_quality.auc(torch.tensor([1.0]), torch.tensor([1.0])) == 0.5


def test_an_encoder_that_knows_nothing_scores_half() -> None:
    def constant(images: Tensor) -> Tensor:
        return torch.ones(len(images), 4)

    found = toybox_quality.telling_apart(constant, subjects=2, views=2, seed=0)
    assert found["value"] == 0.5
    assert found["subjects"] == 2 * len(CLASS_NOUNS)


def test_the_encoders_interval_draws_subjects_and_not_class_nouns(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def spy(groups: Any, **settings: Any) -> Any:
        drawn.append(groups)
        return bootstrap_mean(groups, **settings)

    monkeypatch.setattr(toybox_quality, "bootstrap_mean", spy)
    toybox_quality.telling_apart(Answers().features, subjects=2, views=2, seed=0)
    assert [len(group) for group in drawn[0]] == [2 * len(CLASS_NOUNS)]


def test_all_cells_and_their_table(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    sizes = toybox_quality.Sizes(reconstructions=2, samples=48, subjects=2, views=2, steps=1)
    about: dict[str, Any] = {"seed": 0, "guidance": 3.0, "sizes": {"steps": 1}}
    results = common.Results(tmp_path / "toybox_quality.json", "toybox_quality", about)
    judge = Answers()
    toybox_quality.measure(model, judge, judge.features, results, sizes, 0)
    table = toybox_quality.render(common.load(results.path))
    assert "| autoencoder, PSNR [dB] |" in table
    assert "| 0.0% [0.0%, 0.0%] | ≤ 5 % | 48 samples |" in table
    samples = results.cells["samples"]
    assert samples["fid"] > samples["fid_renders"] > 0
    assert (tmp_path / "toybox_quality.png").exists()
