"""Larger pictures, from cell to table: what is protected, what the trainer sees, and the words about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.rid_ways import QUICK, WAYS, as_trained, photographs, protected, renders
from PIL import Image

from benchmarks import common
from experiments import rid_ways
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.protect import registry

pytestmark = pytest.mark.usefixtures("apart")


def run(model: TextToImage, path: Path) -> dict[str, Any]:
    about = {"pictures": "renders", "levels": 2, "draws": 2, "steps": 1, "seed": 0}
    results = common.Results(path, "rid_ways", about)
    rid_ways.measure(model, results, renders(1, 0), QUICK, 0, levels=2)
    return common.load(path)


def test_from_cells_to_table(model: TextToImage, tmp_path: Path) -> None:
    record = run(model, tmp_path / "rid_ways.json")
    assert run(model, tmp_path / "rid_ways.json")["cells"] == record["cells"]
    assert sorted(record["summary"]) == sorted(f"{who}/128/{way}" for who in ("rid", "advdm") for way in WAYS)
    for key, cell in record["cells"].items():
        if not key.endswith("/clean"):
            base = record["cells"][key.rsplit("/", 2)[0] + "/clean"]
            assert cell["raised"] == pytest.approx(cell["loss"] / base["loss"])
            assert 0 < cell["linf"] <= 8.001
    text = rid_ways.render(record)
    assert "| rid | 128 | own size, in tiles |" in text
    assert "| advdm | 128 | the trainer's size |" in text
    assert "is not measured" in text


def test_a_motif_is_the_same_at_every_side_as_the_trainer_sees_it() -> None:
    (motif,) = renders(1, 0)
    small, large = motif.at(2, 128), motif.at(2, 256)
    assert small.shape == (2, 3, 128, 128)
    apart = (as_trained(small, 64) - as_trained(large, 64)).abs().mean()
    different = (as_trained(small[:1], 64) - as_trained(small[1:], 64)).abs().mean()
    assert float(apart) < 0.15 * float(different)


def test_what_is_published_is_at_eight_bits_within_the_budget() -> None:
    images = renders(1, 0)[0].at(1, 128)
    rid = registry.create("rid", None, {"budget": 8.0, "weights": "rid-toybox"})
    for scale in WAYS.values():
        changed = protected(images, rid, "rid", scale, 0)
        steps = (changed - images) * 255
        assert torch.allclose(steps, steps.round(), atol=1e-3)
        assert 4 < float(steps.abs().max()) <= 8.001


def test_photographs_are_motifs_without_their_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pictures"):
        photographs(tmp_path, 3)
    for name in ("anna", "bert"):
        Image.effect_mandelbrot((300, 260), (-2, -1, 1, 1), 20).convert("RGB").save(tmp_path / f"{name}.png")
    found = photographs(tmp_path, 3)
    assert [motif.name for motif in found] == ["photograph-0", "photograph-1"]
    assert found[0].at(1, 192).shape == (1, 3, 192, 192)
