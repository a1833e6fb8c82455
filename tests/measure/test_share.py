"""A share of few pictures."""

from __future__ import annotations

import pytest
import torch

from unlikeness.errors import UsageError
from unlikeness.measure.intervals import share


def test_it_is_the_share_within_wilson_s_interval() -> None:
    found = share(torch.tensor([True, True, True, False]))
    assert (found.value, found.n) == (0.75, 4)
    assert (found.low, found.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert str(found) == "75%"


@pytest.mark.parametrize("all_", [True, False])
def test_a_few_pictures_that_agree_are_no_certainty(all_: bool) -> None:
    found = share(torch.full((16,), all_))
    assert found.value == float(all_)
    assert found.high - found.low == pytest.approx(0.1936, abs=1e-4)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    drawn = torch.rand(2000, 16, generator=torch.Generator().manual_seed(0)) < 0.3
    held = [one.low <= 0.3 <= one.high for one in map(share, drawn)]
    assert 0.93 < sum(held) / len(held) < 0.99


def test_misuse_is_told() -> None:
    with pytest.raises(UsageError, match="at least one picture"):
        share(torch.tensor([], dtype=torch.bool))
    with pytest.raises(UsageError, match="between 0 and 1"):
        share(torch.tensor([True]), level=95)
