"""The search of settings: who goes on, who is given up, and that a longer run goes on from a shorter one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.judging import Judge
from experiments.apdm_search import Rung, Search
from experiments.immunization import Bench
from experiments.immunizing import Maker, rename_settings
from experiments.leak import create
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks import common, personalization
from experiments import apdm_search, rows
from unlikeness.diffusion import TextToImage
from unlikeness.errors import NotFiniteError, UsageError
from unlikeness.toybox.cast import Member, unseen
from unlikeness.verify.attackers import Attacker

pytestmark = pytest.mark.usefixtures("apart")

S = {"apdm-1": 0.5, "apdm-2": 0.1, "apdm-3": 0.4, "apdm-4": 0.3, "apdm-5": 0.0, "apdm-6": 0.0}
"""What attackers get; of apdm-5 the class drifts by 40 %, of apdm-6 nothing is left, and apdm-7 diverges."""


class Stub:
    """In place of the trainings and attacks of a bench: figures by row, and what was asked for in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: TextToImage) -> None:
        self.asked: list[str] = []

        def released(_: Maker, row: str, who: Member) -> TextToImage:
            self.asked.append(f"{row} {who.class_noun}")
            if row.startswith("apdm-7"):
                raise NotFiniteError("immunizing diverged")
            return model

        def quality(_: Bench, __: TextToImage, who: Member, row: str = "none") -> dict[str, Any]:
            fid = {"apdm-5": 1.4, "apdm-6": 3.0}.get(row.partition("@")[0], 1.1)
            return {
                "fid": fid, "fid_original": 1.0, "recall": 0.8, "recall_original": 0.8, "diversity": 1.0,
            }  # fmt: skip

        def attacked(
            _: Bench, __: TextToImage, who: Member, one: Attacker, base: object, drawn: object, key: str,
            row: str = "none", *further: object,
        ) -> dict[str, Any]:  # fmt: skip
            self.asked.append(f"{row} {who.class_noun} {one.name}")
            return {"s": S.get(row.partition("@")[0], 0.9)}

        monkeypatch.setattr(Maker, "released", released)
        monkeypatch.setattr(Bench, "quality", quality)
        monkeypatch.setattr(Bench, "attacked", attacked)


def bench(model: TextToImage, judge: Judge, path: Path) -> Bench:
    results = common.Results(path, apdm_search.NAME, {"seed": 0})
    return Bench(model, judge, results, 0, quick=True, resumes=True, others=())


def test_the_better_half_goes_on(
    model: TextToImage, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub, cast = Stub(monkeypatch, model), apdm_search.cast_of(0)
    one = bench(model, judge, tmp_path / "found.json")
    names = [f"apdm-{n}" for n in range(1, 8)]
    search = Search(names, [Rung(100, 1, apdm_search.FEW), Rung(200, 1), Rung(400, 2)])
    # 25 % more drift than is allowed is 0.25: apdm-5 comes before apdm-4; the spoilt ones come last.
    assert apdm_search.run(one, search, cast) == ["apdm-2"]
    assert {text.split("@")[0] for text in stub.asked if "@200" in text} == {
        "apdm-2", "apdm-5", "apdm-4", "apdm-3",
    }  # fmt: skip
    assert {text for text in stub.asked if "dog" in text and "@" in text} == {
        f"{name}@400 dog{attacker}" for name in ("apdm-2", "apdm-5")
        for attacker in ("", *(f" {a.name}" for a in apdm_search.EVERY))
    }  # fmt: skip
    # Neither who has spoilt the class nor who diverged is attacked.
    assert not [text for text in stub.asked if text.startswith(("apdm-6", "apdm-7")) and text.count(" ") > 1]
    assert [text for text in stub.asked if text == "apdm-1@100 person lora-4"]
    assert not [text for text in stub.asked if "@100" in text and "lora-16" in text]
    found = common.load(tmp_path / "found.json")
    text = apdm_search.render(found)
    assert "| apdm-2@400 | dog-1007 | 5e-05 | 1 | 5 | 5e-05 | 0 | yes | 0.10 | 0.10 | 0.10 | 0.10 |" in text
    assert "| apdm-6@100 | person-1006 | 5e-05 | 10 | 5 | 5e-05 | 0 | no | – | – | – | – | +200% |" in text
    # What is there is not made again.
    asked = list(stub.asked)
    assert apdm_search.run(one, search, cast) == ["apdm-2"]
    assert [text for text in stub.asked[len(asked) :] if not text.startswith("apdm-7")] == []


def test_a_notice_counts_as_much_as_s() -> None:
    row, cast = "persguard-pattern-1@200", apdm_search.cast_of(0)[:1]
    cells: dict[str, common.Cell] = {
        f"{row}/person-1006/quality": {
            "fid": 1.0, "fid_original": 1.0, "recall": 0.8, "recall_original": 0.8, "diversity": 1.0,
        },
        f"{row}/person-1006/gentle/paper": {"s": 0.2, "protective": 0.25},
    }  # fmt: skip
    assert apdm_search.score(cells, row, cast) == pytest.approx(0.95)
    cells[f"{row}/person-1006/quality"] |= {"recall": 0.4, "diversity": 0.8}
    assert apdm_search.score(cells, row, cast) == pytest.approx(1.45)


def test_a_longer_run_goes_on_from_a_shorter_one(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Maker, "general", lambda _: None)
    who = apdm_search.cast_of(0)[0]
    steps: list[int] = []
    monkeypatch.setattr("unlikeness.immunize.run.train", watched(steps))

    def made(at: Path, *rows: str) -> list[TextToImage]:
        monkeypatch.setattr(common, "RUNS", at)
        maker = Maker(model, common.Results(at / "found.json", "x", {}), quick=True, resumes=True)
        return [maker.released(row, who) for row in rows]

    short, long = made(tmp_path / "on the way", "naive-4@1", "naive-4@2")
    [at_once] = made(tmp_path / "at once", "naive-4@2")
    assert steps == [1, 1, 2]
    pairs = zip(long.denoiser.parameters(), at_once.denoiser.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(short.denoiser.parameters()), next(long.denoiser.parameters()))


def watched(steps: list[int]) -> Any:
    """`train`, which also tells how many steps it has made."""
    from unlikeness.training import train

    def training(*args: Any, **how: Any) -> Any:
        done = train(*args, **how)
        steps.append(len(done.losses))
        return done

    return training


def test_every_row_tried_has_valid_settings_and_a_name_of_its_own() -> None:
    assert not set(rows.TRIED) & set(rows.ROWS)
    for search in apdm_search.SEARCHES.values():
        for row in search.rows:
            method, settings = rows.settings_of(search.rungs[-1].row(row))
            values = {**rows.SCALE, **settings}
            if values.get("protective_output") == "target":
                values["target_noun"] = "cat"
            made = create(method, values).settings
            steps = search.rungs[-1].steps
            assert not steps or (made.outer_steps == steps and not made.fall), "it could not go on"


def test_the_subjects_are_in_no_other_cast() -> None:
    keys = {(who.seed, who.class_noun) for who in apdm_search.cast_of(0)}
    others = unseen(20) + unseen(5, personalization.TUNING_SEED)
    assert not keys & {(who.seed, who.class_noun) for who in others}


def test_an_unknown_row_or_search_is_one_sentence() -> None:
    for row in ("apdm-99", "apdm@many", "apdm@"):
        with pytest.raises(UsageError, match="is no row; there are"):
            rows.settings_of(row)
    assert rows.settings_of("none") == ("", {})
    with pytest.raises(UsageError, match="--searches apmd is none; there are apdm, "):
        apdm_search.cli(["--quick", "--searches", "apmd"])


def test_the_cells_of_a_copy_are_added_and_summed_up(tmp_path: Path) -> None:
    file, copy = tmp_path / "found.json", tmp_path / "copy.json"
    quality = {"fid": 1.0, "fid_original": 1.0, "recall": 0.8, "recall_original": 0.8, "diversity": 1.0}
    mine = common.Results(file, apdm_search.NAME, {"seed": 0})
    mine.cell("none/person-1006/quality", lambda: quality)
    copy.write_bytes(file.read_bytes())
    theirs = common.Results(copy, apdm_search.NAME, {"seed": 0})
    theirs.cell("apdm-1@100/person-1006/quality", lambda: quality)
    theirs.cell("apdm-1@100/person-1006/gentle/paper", lambda: {"s": 0.25})
    apdm_search.cli(["--results", str(file), "--merge", str(copy)])
    found = common.load(file)
    assert found["id"] == mine.record["id"]
    assert found["summary"]["apdm"][0]["s"] == {"paper": 0.25}
    assert "| apdm-1@100 | person-1006 |" in apdm_search.render(found)


def test_a_checkpoint_from_before_settings_were_renamed_goes_on(tmp_path: Path) -> None:
    made = create("apdm", {"attack_stride": 2, "attack_ranks": [4, 8], "attack_low_rank": 0.5}).settings
    new = asdict(made)
    gone = {name for name in new if name in rows._FORMER}
    old = rows.in_former_names({name: list(v) if isinstance(v, tuple) else v for name, v in new.items()})
    old |= {"leak": False, "preserve_guidance": 0.0}
    del old["outer_steps"]
    header = {"step": 3, "identity": {"seed": 0, "settings": {**old, "method": "Apdm"}}}
    state = tmp_path / "x.state"
    save_file({"a": torch.ones(2)}, state, metadata={"training": json.dumps(header)})
    rename_settings(state, made)
    again = state.read_bytes()
    with safe_open(state, framework="pt") as file:
        found = json.loads(file.metadata()["training"])
        assert torch.equal(file.get_tensor("a"), torch.ones(2))
    assert found["step"] == 3
    assert gone <= set(found["identity"]["settings"])
    del new["outer_steps"]
    assert found["identity"]["settings"] == json.loads(json.dumps({**new, "method": "Apdm"}))
    rename_settings(state, made)
    assert state.read_bytes() == again
