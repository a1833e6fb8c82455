"""The ablation of RID's loss, from training to table, on a tiny model with stand-ins for the judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.judging import Judge
from tests.tiny import write_tiny

from benchmarks import attacking, common
from experiments import rid_ablation
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.rid.train.fit import train_protector
from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe
from unlikeness.protect.rid.weights import load_protector
from unlikeness.toybox.cast import unseen

pytestmark = pytest.mark.usefixtures("apart")

FEW = {**rid_ablation.QUICK, "steps": 1}


def bench(model: TextToImage, judge: Judge, path: Path) -> rid_ablation.Bench:
    settings = attacking.full_settings("dreambooth", {**attacking.QUICK_COMMON, "steps": 1})
    about = {"model": "tiny", "seed": 0, "steps": 1, "levels": 2, "draws": 1, "dreambooth": settings}
    return rid_ablation.Bench(model, judge, common.Results(path, "rid_ablation", about), settings, 0)


def test_from_training_to_table(model: TextToImage, judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "rid_ablation.json"
    rows = {row: rid_ablation.recipe(row, FEW) for row in ("regression", "sds")}
    made = bench(model, judge, path)
    made.measure(rows, unseen(2), 1)
    record = common.load(path)
    assert len(record["cells"]) == 2 + 2 * (2 * 3 + 1)
    assert record["summary"]["sds/8"]["subjects"] == 2
    assert record["summary"]["sds/8"]["attacked"]["subjects"] == 1
    assert record["summary"]["sds/4"]["attacked"] is None
    # One set of pictures for all rows; of a finished training the weights stay, the checkpoint does not.
    work = made.results.work
    assert len(list((work / "pictures").glob("*.npy"))) == 2
    assert (work / "sds" / "pictures").resolve() == (work / "regression" / "pictures").resolve()
    kept = work / "sds" / "weights.safetensors"
    assert load_protector(kept).about["recipe"]["displacement_weight"] == 0
    assert not list(work.rglob(CHECKPOINT))
    lines = [line for line in rid_ablation.render(record).splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[:2] for line in lines[:4]] == [
        ["| Adv-SDS", "4"], ["| Adv-SDS", "8"], ["| Adv-SDS", "16"], ["| regression", "4"],
    ]  # fmt: skip

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("what is there was computed again")

    # A further budget or subject finds the trained network; without any, nothing is computed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rid_ablation, "train_protector", never)
        bench(model, judge, path).measure(rows, unseen(2), 2)
        patch.setattr(rid_ablation, "protect", never)
        bench(model, judge, path).measure({"sds": rows["sds"]}, unseen(1), 1)
    again = common.load(path)["summary"]
    assert again["sds/8"]["attacked"]["subjects"] == 2
    assert set(again) == set(record["summary"])


def test_a_stopped_training_goes_on(
    model: TextToImage, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rid_ablation.json"
    rows = {"sds": rid_ablation.recipe("sds", FEW)}

    def stopped(*args: Any, **settings: Any) -> None:
        train_protector(*args, **settings)
        args[2].unlink()  # the checkpoint lies there, the weights do not
        raise UnlikenessError("stopped")

    monkeypatch.setattr(rid_ablation, "train_protector", stopped)
    with pytest.raises(UnlikenessError, match="stopped"):
        bench(model, judge, path).measure(rows, unseen(1), 0)
    monkeypatch.setattr(rid_ablation, "train_protector", train_protector)
    second = bench(model, judge, path)
    assert (second.results.work / "sds" / CHECKPOINT).exists()
    second.measure(rows, unseen(1), 0)
    assert second.results.record["summary"]["sds/16"]["subjects"] == 1


def test_rows_are_terms() -> None:
    assert rid_ablation.asked("visibility + sds,pull,sds+visibility") == ["sds+visibility", "pull"]
    with pytest.raises(UsageError, match="sdz is no term; there are sds, regression"):
        rid_ablation.asked("sdz+pull")
    with pytest.raises(UsageError, match="teaches nothing"):
        rid_ablation.recipe("visibility", {})
    made = rid_ablation.recipe("sds+displacement+visibility", {})
    assert made == ProtectorRecipe(
        sds_weight=1, regression_weight=0, displacement_weight=0.1, pull_weight=0, visibility_weight=1
    )
    assert rid_ablation.recipe("pull", {"steps": 7}).visibility_weight == 0
    assert rid_ablation.asked(",".join(rid_ablation.ROWS)) == list(rid_ablation.ROWS)


def test_unchanged_pictures_have_no_psnr() -> None:
    cells: dict[str, Any] = {"clean/dog-0": {"loss": 1.0}}
    for name, psnr in (("dog-0", None), ("dog-1", 40.0)):
        cells[f"sds+visibility/{name}/8"] = {"raised": 1.0, "psnr": psnr, "ssim": 1.0, "linf": 0.0}
    assert rid_ablation.table_of(cells, seed=0)["sds+visibility/8"]["psnr"] == 40
    del cells["sds+visibility/dog-1/8"]
    assert rid_ablation.table_of(cells, seed=0)["sds+visibility/8"]["psnr"] is None


def test_the_command_in_small(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rid_ablation, "toybox_judge", lambda counts: (judge, "stand-ins"))
    model = str(write_tiny(tmp_path / "tiny"))
    rid_ablation.cli(["--quick", "--model", model, "--rows", "pull+visibility"])
    shown = capsys.readouterr().out
    assert "| pull + visibility | 8 |" in shown
    assert "2 training steps each" in shown
    assert (tmp_path / "runs" / "quick" / "rid_ablation.json").exists()
