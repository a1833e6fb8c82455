"""The results file: finished cells are kept, other weights are refused, and a kill leaves it whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_model

from benchmarks import attacking, common, protection
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.families import Defaults
from unlikeness.errors import UnlikenessError, UsageError


def test_a_finished_cell_is_not_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    calls = []

    def compute() -> dict[str, float]:
        calls.append(1)
        return {"s": 0.5}

    first = common.Results(path, "test", {"seed": 0})
    assert first.cell("a", compute)["s"] == 0.5
    assert first.cell("a", compute)["s"] == 0.5
    again = common.Results(path, "test", {"seed": 0})
    assert again.cell("a", compute)["s"] == 0.5
    assert len(calls) == 1
    assert again.work == first.work
    assert "seconds" in again.cells["a"]


def test_a_failing_cell_leaves_the_others(tmp_path: Path) -> None:
    results = common.Results(tmp_path / "figures.json", "test", {})
    results.cell("a", lambda: {"s": 1.0})
    with pytest.raises(ZeroDivisionError):
        results.cell("b", lambda: {"s": 1 / 0})
    with pytest.raises(ValueError, match="JSON"):
        results.cell("c", lambda: {"s": float("nan")})
    assert list(common.load(tmp_path / "figures.json")["cells"]) == ["a"]


def test_figures_of_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    old = common.Results(path, "test", {"weights": "aaa", "seed": 0})
    old.cell("a", lambda: {"s": 1.0})
    with pytest.raises(UsageError, match="another weights"):
        common.Results(path, "test", {"weights": "bbb", "seed": 0})
    fresh = common.Results(path, "test", {"weights": "bbb", "seed": 0}, fresh=True)
    assert fresh.cells == {}
    assert fresh.work != old.work  # nor are its checkpoints taken


def test_another_precision_may_add_what_it_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    old = common.Results(path, "test", {"precision": "bfloat16", "seed": 0})
    old.cell("x/a", lambda: {"s": 1.0})
    with pytest.raises(UsageError, match=r"another precision.*--keep"):
        common.Results(path, "test", {"precision": "float32", "seed": 0})
    with pytest.raises(UsageError, match=r"another precision, seed.*--results$"):
        common.Results(path, "test", {"precision": "float32", "seed": 1}, keep=True)
    kept = common.Results(path, "test", {"precision": "float32", "seed": 0}, keep=True)
    assert kept.record["about"] == {"precision": "bfloat16", "seed": 0}
    assert kept.cell("x/b", lambda: {"s": 0.5})["precision"] == "float32"
    assert "precision" not in kept.cells["x/a"]
    assert [common.comparable(cell) for cell in kept.cells.values()] == [True, False]
    assert common.made_on(kept.cells) == ["Made in float32, on a CPU without bfloat16: attacks of `x`: 1."]


def test_the_file_tells_versions_and_no_place(tmp_path: Path) -> None:
    results = common.Results(tmp_path / "figures.json", "test", {"model": common.model_name(str(tmp_path))})
    results.finish({"s": 1})
    text = (tmp_path / "figures.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["environment"]["versions"]["torch"] == torch.__version__
    assert list(tmp_path.iterdir()) == [tmp_path / "figures.json"]


def test_what_is_no_results_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UnlikenessError, match=r"broken\.json"):
        common.load(tmp_path / "broken.json")


def test_weights_digest_sees_any_weight() -> None:
    layer = torch.nn.Linear(3, 2)
    before = common.weights_digest(layer)
    assert common.weights_digest(layer) == before
    with torch.no_grad():
        layer.bias[0] += 1
    assert common.weights_digest(layer) != before
    assert common.weights_digest(layer.to(torch.bfloat16)) != before


def test_the_digest_of_a_model_sees_its_configuration(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    before = common.model_digest(model)
    assert common.model_digest(TextToImage.from_pretrained(model.source or "", device="cpu")) == before
    model.defaults = Defaults(guidance=model.defaults.guidance + 1)
    assert common.model_digest(model) != before
    model.defaults = Defaults(guidance=model.defaults.guidance - 1)
    model.autoencoder.network.register_to_config(scaling_factor=0.5)
    assert common.model_digest(model) != before


def test_figures_of_other_code_are_refused_unless_kept(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    common.Results(path, "test", {}, code="aaa").cell("a", lambda: {"s": 1.0})
    assert common.Results(path, "test", {}, code="aaa").cells
    with pytest.raises(UsageError, match="other code has made"):
        common.Results(path, "test", {}, code="bbb")
    kept = common.Results(path, "test", {}, code="bbb", keep=True)
    kept.cell("b", lambda: {"s": 2.0})
    assert common.load(path)["code"] == ["aaa", "bbb"]
    assert list(common.Results(path, "test", {}, code="bbb").cells) == ["a", "b"]
    assert not common.Results(path, "test", {}, code="ccc", fresh=True).cells


def test_the_digest_of_code_sees_what_it_does_and_not_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for names in (attacking.CODE, protection.CODE):
        assert common.code_digest(*names) == common.code_digest(*names)
    monkeypatch.setattr(common, "ROOT", tmp_path)
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.py"
    file.write_text('"""Said."""\nclass A:\n    """Said."""\n\ndef f(x):\n    return x + 1\n')
    first = common.code_digest("folder")
    file.write_text('class A:  # other\n    """Else."""\ndef f(x):\n    """Else."""\n    return (x + 1)\n')
    assert common.code_digest("folder") == first
    file.write_text(file.read_text().replace("+ 1", "+ 2"))
    assert common.code_digest("folder") != first


def test_settings_travel_as_text() -> None:
    assert common.parse_settings("steps=800, learning_rate=3e-4") == {"steps": "800", "learning_rate": "3e-4"}
    assert common.settings_text({"steps": 800, "learning_rate": 3e-4}) == "steps=800,learning_rate=0.0003"
    with pytest.raises(UsageError, match="NAME=VALUE"):
        common.parse_settings("steps")


def test_tables_are_markdown() -> None:
    assert common.table(["a", "b"], [["x", 1.23456], ["y", None]]).splitlines() == [
        "| a | b |", "| --- | ---: |", "| x | 1.23 |", "| y | – |",
    ]  # fmt: skip
    assert common.interval({"value": 0.5, "low": 0.4, "high": 0.6}) == "0.50 [0.40, 0.60]"


def test_quick_figures_never_lie_beside_real_ones() -> None:
    real = common.results_file("x", common.parser("").parse_args([]))
    quick = common.results_file("x", common.parser("").parse_args(["--quick"]))
    assert real == common.RESULTS / "x.json"
    assert common.RESULTS not in quick.parents


def test_what_a_gpu_made_is_said_model_by_model_and_attack_by_attack() -> None:
    gpu: dict[str, object] = {"device": "NVIDIA X, torch 2.0"}
    cells: dict[str, dict[str, object]]
    cells = {"a/0/paper": gpu, "a/0/lora-4": gpu, "a/0/made": gpu, "b/0/paper": gpu, "b/1/paper": {"s": 1.0}}
    assert common.made_on({"b/1/paper": {"s": 1.0}}) == []
    [said] = common.made_on(cells)
    assert said == (
        "Made on a GPU (NVIDIA X, torch 2.0): attacks of `a`: 2, models of `a`: 1, attacks of `b`: 1."
    )
