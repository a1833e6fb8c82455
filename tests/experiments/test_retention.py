"""The retention benchmark from cell to table, on the embedded model in small."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import common
from experiments import immunizing, retention
from unlikeness.toybox.cast import unseen

pytestmark = pytest.mark.usefixtures("apart")


def test_from_cells_to_table(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "retention.json"
    flags = [*quick, "--results", str(path)]
    retention.cli([*flags, "--rows", "none,target"])
    record = common.load(path)
    ends = ("released", "unprotected", "5e-05/1", "5e-05/2")
    wanted = {f"{row}/person-0/{end}" for row in ("none", "target") for end in ends}
    assert set(record["cells"]) == wanted | {"target/person-0/made"}
    assert record["cells"]["none/person-0/released"]["pull_subject"] > 0
    assert "protective" not in record["cells"]["none/person-0/released"]
    assert 0 <= record["cells"]["target/person-0/5e-05/2"]["protective"] <= 1
    assert 0 <= record["cells"]["target/person-0/unprotected"]["protective"] <= 1
    assert "protective" not in record["cells"]["none/person-0/unprotected"]
    shown = capsys.readouterr().out
    assert retention.render(record) in shown
    assert "| target: protective output |" in shown
    assert (tmp_path / "retention-5e-05.png").exists()
    # What is there is not made again, and a smaller run keeps it. A lost look is trained for afresh.
    torn = {
        **record,
        "cells": {key: c for key, c in record["cells"].items() if key != "none/person-0/5e-05/2"},
    }
    path.write_text(json.dumps(torn), encoding="utf-8")
    retention.cli([*flags, "--rows", "none"])
    again = common.load(path)["cells"]
    assert _figures(again) == _figures(record["cells"])


def _figures(cells: dict[str, Any]) -> dict[str, Any]:
    """Without the seconds that they took."""
    return {key: {n: v for n, v in cell.items() if n != "seconds"} for key, cell in cells.items()}


def test_what_a_protection_costs_its_attacker() -> None:
    def found(*s: float) -> dict[str, object]:
        names = ("released", "0.0001/100", "0.0001/200", "0.0001/400")
        return {name: {"s": {"value": value}} for name, value in zip(names, s, strict=True)}

    none = found(0.0, 0.5, 0.8, 0.9)
    assert retention.steps_to(retention.curve(none, "0.0001"), 0.5) == 100
    assert retention.delay(found(0.0, 0.2, 0.4, 0.6), none, "0.0001") == "3.0"
    assert retention.delay(found(0.0, 0.0, 0.1, 0.1), none, "0.0001") == "> 4.0"
    assert retention.delay(found(0.9, 0.9, 0.9, 0.9), none, "0.0001") == "0.0"
    assert retention.delay(none, found(0.0, 0.1, 0.1, 0.1), "0.0001") is None
    assert retention.steps_to([(0, 0.1), (100, 0.2)], 0.5) == math.inf
    assert retention.steps_to([(0, 0.6), (100, 0.4), (200, 0.6)], 0.5) == 0  # known from the start


def test_the_frontier_is_what_a_notice_costs() -> None:
    def figure(s: float, **further: float) -> dict[str, Any]:
        return {"s": {"value": s}, **{name: {"value": value} for name, value in further.items()}}

    found = {
        "released": figure(0.6, protective=1.0), "unprotected": figure(0.4),
        "5e-05/400": figure(0.1, protective=0.8), "0.0001/400": figure(0.5, protective=0.2),
    }  # fmt: skip
    plain = {"released": figure(0.0), "unprotected": figure(0.7), "5e-05/400": figure(0.9)}
    assert retention.frontier({"none": plain, "target": found}) == {"target": (0.8, 0.6, 0.4)}
    assert retention.curve(found, "5e-05", "protective") == [(0, 1.0), (400, 0.8)]


def test_a_row_knows_its_protective_output() -> None:
    [who] = unseen(1)
    target = immunizing.target_of(who)
    assert target not in {who.class_noun, immunizing.others_of(who)["another class"].class_noun}

    class Reads:
        def read(self, images: torch.Tensor) -> tuple[list[str], list[str]]:
            return [target, who.class_noun], ["", ""]

    images = torch.zeros(2, 3, 64, 64)
    assert immunizing.protective_of("apdm", who, images, Reads()) is None
    for row, expected in {
        "target": [True, False],
        "erasure": [True, False],
        "pattern": [False, False],
    }.items():
        shown = immunizing.protective_of(row, who, images, Reads())
        assert shown is not None
        assert shown.tolist() == expected
    other = immunizing.others_of(who)["another class"]  # whose own target is another
    shown = immunizing.protective_of("target", other, images, Reads(), who)
    assert shown is not None
    assert shown.tolist() == [True, False]
