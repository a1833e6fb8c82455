"""Whence a class drifts, from cell to table, on the embedded model in small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import common
from experiments import drift_parts
from unlikeness.diffusion import TextToImage

pytestmark = pytest.mark.usefixtures("apart")


def test_from_cells_to_table(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "drift_parts.json"
    drift_parts.cli([*quick, "--results", str(path), "--rows", "target-held"])
    record = common.load(path)
    cell = record["cells"]["target-held/person-0/parts"]
    assert len({cell[name] for name in drift_parts.DRAWN}) == 4
    assert min(cell[name] for name in drift_parts.MOVED) > 0
    assert record["summary"]["target-held"] == {
        name: cell[name] for name in (*drift_parts.DRAWN, *drift_parts.MOVED)
    } | {"subjects": 1}
    assert drift_parts.render(record) in capsys.readouterr().out


def test_each_half_is_answered_by_its_own_network() -> None:
    original = TextToImage.from_pretrained("toybox", dtype="float32")
    other = original.copy()
    with torch.no_grad():
        other.denoiser.conv_out.bias += 1.0
    z, t = torch.zeros(4, *original.latent_shape), torch.full((4,), 500)
    c = original.condition(["", "", "a", "b"])
    plain = original.predict(z, t, c)
    halves = drift_parts.Halves(without=other.denoiser, words=original.denoiser)
    found = halves.predict(None, z, t, c) - plain
    assert torch.allclose(found[:2], torch.ones_like(found[:2]), atol=1e-5)
    assert torch.allclose(found[2:], torch.zeros_like(found[2:]), atol=1e-5)
