"""Suites hold to the settings and names that exist, and cross what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.bench.conftest import SMALL, written

from unlikeness.bench.cells import Cell, expand
from unlikeness.bench.entries import Defence, attacker, base, overrides
from unlikeness.bench.suites import OWN, load, parse, shipped
from unlikeness.cli import main
from unlikeness.errors import UsageError
from unlikeness.personalize import names as methods
from unlikeness.presets import ATTACKS
from unlikeness.protect import names as protections
from unlikeness.verify.attackers import FURTHER, attackers, personalizer


@pytest.mark.parametrize("name", shipped())
def test_every_suite_fits_the_settings_and_names_that_exist(name: str) -> None:
    suite = load(name)
    cells = expand(suite)
    assert suite.plan.about
    assert suite.plan.cell_seconds
    assert len(set(cells)) == len(cells)
    assert {one.control for one in cells} - {None} <= set(cells)
    for one in {cell.attacker: cell for cell in cells}.values():
        own = overrides(suite, one.attacker, one.steps)
        made = personalizer(attacker(suite, one.attacker), base(suite, 0), own)
        assert type(made).__name__


def test_the_full_table_has_every_protection_attacker_and_purifier() -> None:
    cells = expand(load("toybox"))
    found = {(one.defence.name, one.defence.budget) for one in cells}
    assert {(name, budget) for name in protections() for budget in (4, 8, 16)} <= found
    names = {one.name for one in (*attackers(), *FURTHER)} | {one.name for one in ATTACKS} | set(methods())
    assert {one.attacker for one in cells} == names
    assert {one.subject for one in cells} == set(range(12))
    assert "upscale" not in {one.purifier for one in cells}  # it needs an upscaler
    assert {"none", "jpeg", "gridpure", "resize:0.5,jpeg:75"} <= {one.purifier for one in cells}


def test_what_makes_no_difference_is_not_crossed() -> None:
    grid = {
        "defences": ["none", "rid", "divert"], "attackers": ["paper", "unseen-pictures", "mixed-half"],
        "purifiers": ["none", "jpeg"],
    }  # fmt: skip
    cells = expand(parse("s", {**SMALL, "grids": [grid]}))
    rid, none = Defence("rid", "pictures", "rid", 8.0), Defence("none")
    divert = Defence("divert", "model", "divert")
    assert set(cells) == {
        Cell(none, "paper"), Cell(none, "unseen-pictures"), Cell(none, "paper", "jpeg"),
        *(Cell(one, "mixed-half", wash) for one in (none, rid) for wash in ("none", "jpeg")),
        Cell(rid, "paper"), Cell(rid, "paper", "jpeg"),
        Cell(divert, "paper"), Cell(divert, "unseen-pictures"),
    }  # fmt: skip


def test_controls_are_added_and_come_first() -> None:
    grid = {"defences": ["rid"], "attackers": ["lora-4"], "steps": 7}
    cells = expand(parse("s", {**SMALL, "grids": [grid]}))
    assert [one.defence.name for one in cells] == ["none", "rid"]
    assert cells[0] == cells[1].control
    assert cells[0].steps == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"grid": []}, "grid is nothing that a suite has (did you mean grids?)"),
        ({"subjcts": 3}, "subjcts is nothing that a suite has (did you mean subjects?)"),
        ({"subjects": 0}, "subjects must be at least 1"),
        ({"grids": [{"defences": ["ridd"]}]}, "ridd is no defence (did you mean rid"),
        ({"grids": [{"attackers": ["papper"]}]}, "papper is no attacker (did you mean paper"),
        ({"grids": [{"attackers": ["gray-box"]}]}, "gray-box needs the pools"),
        ({"grids": [{"purifiers": ["jpg:75"]}]}, "jpg is no purification (did you mean jpeg?)"),
        ({"grids": [{"defences": ["rid"], "budgets": [-1]}]}, "budgets must be more than 0"),
        ({"grids": [{"mixed": ["most"]}]}, "mixed is no setting of Grid"),
        ({"grids": "all"}, "grids must be a list"),
        ({"protect": {"advdm": {"stepps": 3}}}, "stepps is no setting of AdvDMSettings (did you mean steps"),
        ({"protect": {"mine": {"steps": 3}}}, "mine is no protection"),
        ({"immunize": {"divert": {"outer_steps": 0}}}, "outer_steps must be at least 1"),
        ({"personalize": {"fast": {"steps": 3}}}, "fast is no attacker"),
        ({"attack": {"seed": 3}}, "seed is an axis"),
        ({"attack": 3}, "attack must be lines NAME: VALUE"),
    ],
)
def test_a_wrong_suite_is_one_sentence_that_names_it(content: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse("s", {**SMALL, **content}, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_presets_of_others_are_scaled_by_the_model() -> None:
    small, large = (parse("s", {"model": model}) for model in ("toybox", "a/model"))
    assert attacker(large, "kohya-sdxl").further["steps"] == 1600
    assert attacker(small, "kohya-sdxl").further["steps"] == 400
    assert attacker(parse("s", SMALL), "kohya-sdxl").further["steps"] == 1  # as the suite says


def test_rows_of_a_name_of_their_own() -> None:
    suite = parse("s", {
        **SMALL, "protect": {"soft": {"method": "advdm", "steps": 3}},
        "personalize": {"tiny": {"method": "lora", "rank": 2}, "lora-4": {"learning_rate": 0.1}},
        "grids": [{"defences": ["soft"], "attackers": ["tiny", "lora-4"]}],
    })  # fmt: skip
    assert {one.defence.method for one in expand(suite)} == {"", "advdm"}
    made = {
        name: personalizer(attacker(suite, name), base(suite, 3), overrides(suite, name, None)).settings
        for name in ("tiny", "lora-4")
    }
    assert (made["tiny"].rank, made["tiny"].steps) == (2, 1)  # type: ignore[attr-defined]
    assert (made["lora-4"].learning_rate, made["lora-4"].seed) == (0.1, 3)


def test_settings_of_the_command_come_before_those_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL)
    suite = load(str(path), {"model": "other"}, {"steps": "5", "lora-4.rank": "3"})
    assert suite.plan.model == "other"
    assert base(suite, 0).steps == 5
    assert overrides(suite, "lora-4", None)["lora-4"]["rank"] == "3"


def test_a_dry_run_counts_and_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    path = written(tmp_path, {**SMALL, "cell_seconds": 90})
    assert main(["bench", "run", str(path), "--output", str(out), "--dry-run", "--workers", "2"]) == 0
    assert "3 cells, 3 missing; about 2 min 15 s with 2 at a time" in capsys.readouterr().out
    assert not out.exists()
    assert main(["bench", "run", "sdxl", "--output", str(out), "--dry-run"]) == 0
    assert " h " in capsys.readouterr().out


def test_the_command_refuses_what_is_no_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1", encoding="utf-8")
    for name, status, words in (
        ("smoek", 2, "smoek is no suite and no file (did you mean smoke?)"),
        (str(broken), 1, "cannot be read"),
    ):
        assert main(["bench", "run", name, "--output", str(tmp_path / "out")]) == status
        assert words in capsys.readouterr().err
    assert yaml.safe_load((OWN / "smoke.yaml").read_text())["grids"]
