"""The table of differences to plain diffusers: none in pictures, and below 1e-6 in the loss."""

from __future__ import annotations

import pytest

from benchmarks import parity
from unlikeness.diffusion.families import FAMILIES


def test_nothing_differs_from_plain_diffusers(capsys: pytest.CaptureFixture[str]) -> None:
    parity.run([])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:] if line]
    assert {row[0].strip() for row in rows} == set(parity.LOSSES)
    for _, picture, loss, with_lora in rows:
        assert float(picture) == float(with_lora) == 0
        assert float(loss) < 1e-6


def test_every_row_is_a_family() -> None:
    assert set(parity.small()) == set(parity.LOSSES) == set(FAMILIES)
