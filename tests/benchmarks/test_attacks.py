"""Personalization and protection from cell to table, on a tiny model with stand-ins for the judges."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.judging import Counts, Judge, pack, s_of, summarize, unpack
from PIL import Image
from torch import Tensor

from benchmarks import attacking, common, personalization, protection, publishing
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.families import Defaults
from unlikeness.diffusion.loss import mean_loss_over_levels as frozen_loss
from unlikeness.errors import UsageError
from unlikeness.measure.similarity import Pairs
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.toybox.cast import member, unseen

pytestmark = pytest.mark.usefixtures("apart")


def pairs(generated: float = 0.6) -> Pairs:
    return Pairs(np.full((4, 3), generated), np.full((5, 3), 0.2), np.full((3, 3), 0.9))


def test_s_and_its_packing() -> None:
    assert s_of(pairs(0.55)) == pytest.approx(0.5)
    again = unpack(json.loads(json.dumps(pack(pairs(0.55)))))
    assert s_of(again) == pytest.approx(0.5)
    with pytest.raises(UsageError, match="does not tell the subject"):
        s_of(Pairs(np.ones((2, 2)), np.ones((2, 2)), np.full((2, 2), 0.5)))


def cell(s: float, context: float = 1.0) -> dict[str, Any]:
    return {"s": s, "context_read": context, "s_new_context": s, "class_read": 1.0, "pictures": 4,
            "pictures_new_context": 3,
            "pairs": pack(pairs(0.2 + 0.7 * s))}  # fmt: skip


def test_summary_is_the_mean_over_subjects() -> None:
    found = summarize([cell(0.4), cell(0.8, 0.5)], seed=0)
    assert found["s"]["value"] == pytest.approx(0.6, abs=1e-3)
    assert found["s"]["low"] <= 0.6 <= found["s"]["high"]
    assert found["context_read"]["value"] == pytest.approx(0.75)
    assert (found["subjects"], found["pictures"], found["s_least"]) == (2, 8, 0.4)
    assert found["pictures_new_context"] == 6


def test_the_best_setting_keeps_the_context(tmp_path: Path) -> None:
    results = common.Results(tmp_path / "figures.json", "test", {})
    rows: list[dict[str, Any]] = [{"steps": 1}, {"steps": 2}, {"steps": 3}]
    for row, s, context in zip(rows, (0.5, 0.7, 0.9), (1.0, 0.8, 0.2), strict=True):
        for who in ("dog-0", "cat-1"):
            results.cells[personalization.key("tuning", "lora", row, who)] = cell(s, context)
    assert personalization.choose("lora", rows, results, ["dog-0", "cat-1"]) == {"steps": 2}
    with pytest.raises(UsageError, match="not tuned yet"):
        personalization.choose("lora", rows, results, ["dog-0", "cat-1", "mug-2"])
    assert personalization.choose("lora", rows[:1], results, ["mug-2"]) == {"steps": 1}


def test_settings_given_by_hand() -> None:
    given = personalization.chosen_by_hand(["dreambooth:steps=7,learning_rate=3e-4"])
    assert given == {"dreambooth": {"steps": 7, "learning_rate": 3e-4}}
    with pytest.raises(UsageError, match="stepz"):
        personalization.chosen_by_hand(["dreambooth:stepz=7"])
    for method, rows in {**attacking.GRID, **attacking.QUICK}.items():
        for row in rows:
            assert attacking.full_settings(method, {**attacking.COMMON, **row})["batch_size"] == 4


def arguments(**values: Any) -> argparse.Namespace:
    given = {"quick": True, "seed": 0, "stage": "all", "methods": "dreambooth,lora", "subjects": 1,
             "tuning": 1, "use": []}  # fmt: skip
    return argparse.Namespace(**{**given, **values})


def test_personalization_from_tuning_to_table(model: TextToImage, judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "personalization.json"
    what = {"seed": 0, "guidance": 7.5}
    personalization.measure(model, judge, common.Results(path, "personalization", what), arguments())
    record = common.load(path)
    tuned = [name for name in record["cells"] if name.startswith("tuning/dreambooth")]
    assert len(tuned) == len(attacking.QUICK["dreambooth"])
    assert record["summary"]["test"]["lora"]["settings"]["rank"] == 4
    assert {name.split("/")[-1] for name in tuned} == {"person-1000"}
    table = personalization.render(record)
    assert "| dreambooth |" in table
    assert "person-0" in table
    sheet = tmp_path / "personalization" / "test-lora-person-0.png"
    assert sheet.exists()

    def never(*_: Any, **__: Any) -> Mapping[str, Any]:
        raise AssertionError("a finished cell was computed again")

    again = common.Results(path, "personalization", what)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacking, "attack", never)
        personalization.measure(model, judge, again, arguments())
    assert again.record["cells"] == record["cells"]


def test_halves_and_methods_leave_each_others_figures(
    model: TextToImage, judge: Judge, tmp_path: Path
) -> None:
    path = tmp_path / "personalization.json"

    def run(**values: Any) -> dict[str, Any]:
        results = common.Results(path, "personalization", {"seed": 0, "guidance": 7.5})
        personalization.measure(model, judge, results, arguments(**values))
        return common.load(path)

    run(stage="tune", methods="dreambooth")
    run(stage="test", methods="dreambooth")
    record = run(methods="lora", use=["lora:steps=1,rank=2"])
    assert set(record["summary"]["test"]) == {"dreambooth", "lora"}
    assert len(record["summary"]["tuning"]) == 2
    assert record["summary"]["test"]["lora"]["by_hand"]
    table = personalization.render(record)
    assert "chosen on other subjects: dreambooth" in table
    assert "given by hand: lora: steps=1,rank=2" in table
    # The order of settings makes no other cell; the table shows those of the summary alone.
    count = len(record["cells"])
    assert len(run(methods="lora", use=["lora:rank=2,steps=1"])["cells"]) == count
    record = run(methods="lora", use=["lora:rank=2,steps=2"])
    assert len(record["cells"]) == count + 1
    assert personalization.render(record).count("| lora | person-0 |") == 1


def test_class_pictures_are_those_of_the_attacks_own_settings(model: TextToImage, tmp_path: Path) -> None:
    priors = attacking.Priors(model)
    few = PersonalizeSettings(class_images=2, class_steps=1)
    first = priors.of("dog", few)
    assert first is not None
    guided = priors.of("dog", replace(few, class_guidance=1.0))
    assert guided is not None
    assert not torch.equal(guided.mean, first.mean)
    assert priors.of("dog", replace(few, class_images=0)) is None
    assert priors.of("dog", replace(few, prior_weight=0.0)) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacking, "class_prior", None)  # another process finds them
        again = attacking.Priors(model).of("dog", few)
    assert again is not None
    assert torch.equal(again.mean, first.mean)
    with torch.no_grad():
        model.denoiser.conv_in.bias.add_(1)
    assert attacking.Priors(model).folder != priors.folder
    assert not [file for file in priors.folder.iterdir() if file.name.startswith(".")]


def test_the_sheet_has_a_row_for_each_kind(tmp_path: Path) -> None:
    counts = Counts.few()
    red, green, blue = (torch.zeros(n, 3, 8, 8) for n in (5, counts.generated, 3))
    red[:, 0], green[:, 1], blue[:, 2] = 1, 1, 1
    personalization.save_sheet(tmp_path / "sheet.png", red, torch.cat([green, blue]), counts)
    with Image.open(tmp_path / "sheet.png") as sheet:
        third = [sheet.getpixel((2 * 10 + 4, row * 10 + 4)) for row in range(3)]
    assert third == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]


def test_what_cannot_be_asked_is_refused_before_training(
    model: TextToImage, judge: Judge, tmp_path: Path
) -> None:
    results = common.Results(tmp_path / "figures.json", "test", {})
    with pytest.raises(UsageError, match="lroa has no settings"):
        personalization.measure(model, judge, results, arguments(methods="lroa"))
    with pytest.raises(UsageError, match="leaves out"):
        personalization.measure(model, judge, results, arguments(methods="lora", use=["dreambooth:steps=1"]))
    assert protection.asked("noise, advdm", "4,8") == (["noise", "advdm"], [4, 8])
    for methods, budgets in (("nois", "8"), ("noise", "8.5"), ("noise", "-1")):
        with pytest.raises(UsageError):
            protection.asked(methods, budgets)
    assert not results.cells


def test_what_decides_the_figures_is_told(model: TextToImage) -> None:
    args = argparse.Namespace(model="tiny", seed=0, quick=False)
    told = personalization.about(model, args, "judges", Counts())
    assert told["common"] == attacking.COMMON
    assert told["guidance"] == model.defaults.guidance
    assert told["precision"] in ("float32", "bfloat16")
    model.defaults = Defaults(guidance=model.defaults.guidance + 1)
    assert personalization.about(model, args, "judges", Counts())["weights"] != told["weights"]


def test_protection_compares_with_the_same_noise(model: TextToImage, tmp_path: Path) -> None:
    clean = member(0, "dog").subject(2)
    small, other = clean.images[..., ::2, ::2], clean.images[..., 1::2, ::2]
    one = frozen_loss(model, small, clean.class_prompt, seed=3, levels=5)
    assert one == frozen_loss(model, small, clean.class_prompt, seed=3, levels=5)
    assert one != frozen_loss(model, other, clean.class_prompt, seed=3, levels=5)
    changed = protection.protect(model, clean.images, "advdm", {"budget": 8.0, "steps": 1}, 0)
    seen = protection.visibility(clean.images, changed)
    assert 0 < seen["linf"] <= 8
    assert torch.equal((changed * 255).round() / 255, changed)
    assert protection.visibility(clean.images, clean.images)["psnr"] is None


def test_protection_from_cells_to_table(model: TextToImage, judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "protection.json"
    settings = attacking.full_settings("dreambooth", {**attacking.QUICK_COMMON, "steps": 1})
    what = {"seed": 0, "dreambooth": settings, "counts": {"levels": 3}}
    wanted: dict[str, Any] = {
        "cast": unseen(1), "methods": ["noise", "advdm"], "budgets": [8], "seed": 0, "further": {"steps": 1},
    }  # fmt: skip
    protection.measure(model, judge, common.Results(path, "protection", what), settings, **wanted)
    record = common.load(path)
    assert list(record["cells"]) == ["person-0/clean", "person-0/noise/8", "person-0/advdm/8"]
    clean, noise, advdm = record["cells"].values()
    assert clean["loss"] == clean["loss_clean"] == noise["loss_clean"] == advdm["loss_clean"]
    assert clean["linf"] == 0
    assert noise["linf"] == 8
    assert len(list((tmp_path / "runs").rglob("prior-person-*.safetensors"))) == 1
    assert not list((tmp_path / "runs").rglob("person-0*.safetensors"))
    table = protection.render(record)
    assert "| noise | 8 |" in table
    assert "| clean | 0 |" in table
    assert f"{Counts.few().generated} generated each" in table  # those that s is made of
    results = common.Results(path, "protection", what)
    protection.measure(model, judge, results, settings, **{**wanted, "methods": ["noise"], "budgets": [4]})
    assert list(results.record["summary"]) == ["clean", "noise/4", "noise/8", "advdm/8"]


def test_aspl_protects_a_subject_and_learns_as_the_attacker_does(model: TextToImage) -> None:
    assert protection.asked("aspl", "4")[0] == ["aspl"]
    with pytest.raises(UsageError):
        protection.asked("aspl", "-1")
    who = member(0, "dog").subject(2)
    attack = attacking.full_settings("dreambooth", {**attacking.QUICK_COMMON, "steps": 1})

    def aspl(**settings: Any) -> Tensor:
        return publishing.published(
            model, who, "aspl", 8.0, 0, priors=attacking.Priors(model), attack={**attack, **settings},
            further=publishing.QUICK,
        )  # fmt: skip

    changed = aspl(learning_rate=1e-3)
    assert 0 < publishing.visibility(who.images, changed)["linf"] <= 8
    assert torch.equal((changed * 255).round() / 255, changed)
    assert torch.equal(aspl(learning_rate=1e-3), changed)
    assert not torch.equal(aspl(learning_rate=0.1), changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacking, "class_prior", None)  # kept
        patch.setattr("unlikeness.personalize.data.class_prior", None)
        assert torch.equal(aspl(learning_rate=1e-3, class_images=0), aspl(prior_weight=0, learning_rate=1e-3))
    assert publishing.tagged("aspl") == "aspl"


def protected_cell(s: float, loss: float) -> dict[str, Any]:
    return {**cell(s), "loss": loss, "loss_clean": 1.0, "linf": 8.0, "psnr": 30.0, "ssim": 0.9}


def test_a_row_is_over_all_subjects_that_have_it(tmp_path: Path) -> None:
    cells = {f"dog-{i}/clean": {**protected_cell(1, 1), "psnr": None} for i in range(12)}
    cells |= {f"dog-{i}/{publishing.tagged('aspl')}/8": protected_cell(0.5, 2) for i in range(12)}
    cells |= {f"dog-{i}/noise/4": protected_cell(0.5, 1 + i) for i in range(2)}
    cells |= {f"dog-{i}/aspl@0ld/8": protected_cell(0.5, 2) for i in range(12)}
    found = protection.table_of(cells, seed=0)
    rows = ["clean", "noise/4", f"{publishing.tagged('aspl')}/8"]
    assert list(found) == rows
    assert [found[way]["subjects"] for way in rows] == [12, 2, 12]
    assert found["noise/4"]["loss_ratio"]["value"] == pytest.approx(1.5)
    about = {
        "dreambooth": {"steps": 1, "batch_size": 4, "learning_rate": 1e-3},
        "seed": 0,
        "counts": {"levels": 3},
    }
    table = protection.render({"summary": found, "about": about}).splitlines()
    assert table[3].startswith("| noise | 4 |")
    assert table[3].endswith("| 2 |")
    assert table[4].startswith("| aspl | 8 |")


def test_a_smaller_run_leaves_the_table(model: TextToImage, judge: Judge, tmp_path: Path) -> None:
    settings = attacking.full_settings("dreambooth", {**attacking.QUICK_COMMON, "steps": 1})
    results = common.Results(tmp_path / "protection.json", "protection", {"seed": 0})
    results.cells["dog-7/noise/8"] = protected_cell(0.5, 1)
    results.cells["dog-7/clean"] = results.cells["person-0/clean"] = {**protected_cell(1, 1), "psnr": None}
    protection.measure(
        model, judge, results, settings, cast=unseen(1), methods=[], budgets=[], seed=0, further={}
    )
    summary = results.record["summary"]
    assert {way: row["subjects"] for way, row in summary.items()} == {"clean": 2, "noise/8": 1}


def test_protection_without_a_setting_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    with pytest.raises(UsageError, match="personalization"):
        protection.dreambooth_settings("", "aaa")
    assert protection.dreambooth_settings("steps=4", "aaa") == {"steps": "4"}
    record = {
        "about": {"weights": "aaa"}, "cells": {},
        "summary": {"test": {"dreambooth": {"chosen": {"steps": 9}}}},
    }  # fmt: skip
    (tmp_path / "personalization.json").write_text(json.dumps(record))
    assert protection.dreambooth_settings("", "aaa") == {"steps": 9}
    with pytest.raises(UsageError, match="other weights"):
        protection.dreambooth_settings("", "bbb")
