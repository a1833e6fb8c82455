"""The presets of the toybox are the rows that were measured."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pytest
from experiments.rows import ROWS, SCALE

from unlikeness.immunize import create
from unlikeness.immunize.methods.settings import DivertSettings, NoticeSettings
from unlikeness.presets import preset_values


def test_notice_has_the_settings_that_were_measured() -> None:
    measured: dict[str, Any] = {**ROWS["target-often"][1], "protective_output": ("target",)}
    of_the_toybox = {*SCALE, "learning_rate", "attack_learning_rate", "preserve_batch_size"}
    made = NoticeSettings(target_noun=("cat",))
    assert {name: getattr(made, name) for name in measured if name not in of_the_toybox} == {
        name: value for name, value in measured.items() if name not in of_the_toybox
    }
    common = DivertSettings(protective_output=("target",), target_noun=("cat",))
    differ = {f.name for f in fields(common) if getattr(made, f.name) != getattr(common, f.name)}
    assert differ <= {*measured, "pattern_weight", "avoidance"}  # which target does not use
    for one, other in (("learning_rate", "attack_learning_rate"), ("preserve_batch_size", "batch_size")):
        ratio = getattr(made, one) / getattr(made, other)
        assert ratio == pytest.approx(measured[one] / measured[other])


@pytest.mark.parametrize(
    ("method", "row", "given"),
    [
        ("divert", "divert", {}),
        ("notice", "target-often", {"target_noun": "cat"}),
        ("notice", "pattern-often-marked", {"protective_output": "pattern", "attack_from_start": True}),
        ("notice", "erasure-often-away", {"protective_output": "erasure", "attack_from_start": True}),
    ],
)
def test_the_presets_of_the_toybox_are_those_that_were_measured(
    method: str, row: str, given: dict[str, Any]
) -> None:
    measured = asdict(create("divert", {**SCALE, **given, **ROWS[row][1]}).settings)
    made = asdict(create(method, {**preset_values("immunize", "auto", 64, method), **given}).settings)
    for kind, name in (("pattern", "pattern_weight"), ("erasure", "avoidance")):
        if given.get("protective_output") != kind:  # decides nothing there
            made.pop(name), measured.pop(name)
    assert made == measured
