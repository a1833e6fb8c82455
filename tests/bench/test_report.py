"""The report: rows beside their controls, the worst first, in Markdown, CSV and one page."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlikeness.bench.curves import charts
from unlikeness.bench.report import by_defence, line, published, write
from unlikeness.bench.rows import Row, rows
from unlikeness.cli import main
from unlikeness.measure.similarity import Pairs, packed


def record(
    s: float, *, defence: str = "none", kind: str = "none", budget: float | None = None,
    attacker: str = "paper", purifier: str = "none", steps: int | None = None, subject: int = 0,
    unreadable: float = 0.0,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """A cell whose s is about `s`: the subject is like itself by 0.9, and its class by 0.4."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.002, (8, 4))
    pairs = Pairs(0.4 + 0.5 * s + noise, 0.4 + noise, np.full((4, 4), 0.9))
    cell = {
        "defence": {"name": defence, "kind": kind, "method": "" if kind == "none" else defence,
                    "budget": budget},
        "attacker": attacker, "purifier": purifier, "steps": steps, "subject": subject,
        "seed": 0,
    }  # fmt: skip
    spoiled = [{"name": "unreadable", "by": "toybox", "value": unreadable, "clean": 0.1}]
    figures = {
        "pairs": packed(pairs), "pairs_new_contexts": None, "s_worst": s, "spoiled": spoiled, "metrics": {},
    }  # fmt: skip
    attack = {"steps": steps or 400}
    return f"{defence}-{attacker}-{subject}", {
        "cell": cell, "figures": figures, "attacker": attack, "seconds": 1.0, "code": "c", "status": "done",
    }  # fmt: skip


def found(*given: tuple[str, dict[str, Any]]) -> list[Row]:
    return rows(given)


def test_a_row_is_a_mean_over_subjects_beside_its_control() -> None:
    made = found(
        record(0.9), record(0.7, subject=1), record(0.2, defence="rid", kind="pictures", budget=8),
        record(0.4, defence="rid", kind="pictures", budget=8, subject=1, unreadable=0.5),
    )  # fmt: skip
    assert [one.cell.defence.title for one in made] == ["none", "rid, 8/255"]
    assert made[1].s.value == pytest.approx(0.3, abs=0.01)
    assert made[1].s.low < 0.25 < 0.35 < made[1].s.high
    assert made[1].unprotected == pytest.approx(0.8)
    assert made[1].subjects == 2
    assert line(made[1])[7] == "25% (10%)"


@pytest.mark.parametrize(
    ("s", "control", "outcome"),
    [(0.6, 0.9, "learnt"), (0.02, 0.9, "protected"), (0.2, 0.9, "little"), (0.02, 0.1, "inconclusive"),
     (0.02, None, "inconclusive")],
)  # fmt: skip
def test_a_low_s_counts_only_where_the_control_is_learnt(
    s: float, control: float | None, outcome: str
) -> None:
    cells = [record(s, defence="divert", kind="model")]
    made = found(*cells, *([] if control is None else [record(control)]))
    (one,) = [row for row in made if row.cell.defence.kind == "model"]
    assert one.outcome == outcome


def test_the_worst_attack_comes_first() -> None:
    made = found(
        record(0.9), record(0.1, defence="rid", kind="pictures", budget=8),
        record(0.6, defence="rid", kind="pictures", budget=8, purifier="jpeg:75"),
        record(0.5, defence="divert", kind="model"),
    )  # fmt: skip
    worst = by_defence(made)
    assert [one.cell.defence.name for one in worst] == ["none", "rid", "divert"]
    assert worst[1].attack == "paper after jpeg:75"


def test_published_figures_are_compared_by_what_is_left() -> None:
    made = found(record(0.8), record(0.2, defence="apdm", kind="model"))
    lines = published(made)
    assert [one[5:] for one in lines] == [["20%", "25%"], ["16%", "25%"]]
    assert published(found(record(0.1), record(0.02, defence="apdm", kind="model")))[0][-1] == "inconclusive"


def test_curves_have_a_point_for_each_step_and_budget() -> None:
    made = found(
        record(0.9), record(0.3, steps=50), record(0.7, steps=200),
        *(record(1 - b / 20, defence="rid", kind="pictures", budget=b) for b in (4, 8, 16)),
    )  # fmt: skip
    steps, budget = charts(made)
    assert steps.title == "paper: s against the attacker's steps"
    (line,) = steps.lines
    assert [x for x, _, _ in line.dots] == sorted(x for x, _, _ in line.dots)
    assert line.dots[0][2] == "none: 50 steps, s 0.30"
    ys = [y for _, y, _ in line.dots]
    assert ys == sorted(ys, reverse=True)
    assert {one.name: len(one.dots) for one in budget.lines} == {"none": 2, "rid": 3}


def test_the_page_is_one_file_and_escapes_what_a_record_says(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(made, folder)
    file = next((folder / "cells").glob("rid*.json"))
    text = json.loads(file.read_text())
    text["cell"]["attacker"] = "<script>alert(1)</script>"
    file.write_text(json.dumps(text))
    said = write(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert said[-1] == str(folder / "report.html")
    assert "<script>alert" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("data:image/png") >= 1
    table = list(csv.DictReader((folder / "report.csv").open()))
    assert len(table) == 3
    assert {"s", "s_low", "unreadable toybox", "unreadable toybox, unprotected"} <= set(table[0])
    assert "| defence | attack |" in (folder / "report.md").read_text()


def test_a_folder_without_cells_or_with_a_broken_one_is_one_sentence(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "report", str(tmp_path)]) == 1
    assert "holds no cells" in capsys.readouterr().err
    (tmp_path / "cells").mkdir()
    broken = tmp_path / "cells" / "one-abc.json"
    for text, words in (("[1", "is no record"), ('{"cell": {}, "status": "done"}', "has another form")):
        broken.write_text(text)
        assert main(["bench", "report", str(tmp_path)]) == 1
        assert words in capsys.readouterr().err
    assert main(["bench", "list", "atackers"]) == 2
    assert "did you mean attackers?" in capsys.readouterr().err
