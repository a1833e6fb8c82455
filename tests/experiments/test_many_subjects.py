"""Many subjects in one model, from cell to table, on the embedded model in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common
from experiments import many_subjects, rows

pytestmark = pytest.mark.usefixtures("apart", "unattacked")


@pytest.mark.parametrize("schedule", many_subjects.SCHEDULES)
def test_from_cells_to_table(
    quick: list[str], schedule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many_subjects.json"
    flags = [*quick, "--results", str(path), "--schedule", schedule, "--counts", "2"]
    many_subjects.cli([*flags, "--attacked", "1"])
    record = common.load(path)
    key = f"divert, {schedule}, 2/2"
    ends = (
        "made", "quality", "protected/person-0", "same class/person-50000", "another class/dog-50000",
    )  # fmt: skip
    assert set(record["cells"]) == {f"{key}/{end}" for end in ends}
    assert record["cells"][f"{key}/made"]["outer_steps"] == (2 if schedule == "sampled" else 4)
    shown = capsys.readouterr().out
    assert many_subjects.render(record) in shown
    assert f"| divert, {schedule}, 2 | 2 |" in shown
    # Another subject under attack adds its cell to those that are there.
    many_subjects.cli([*flags, "--attacked", "2"])
    again = common.load(path)["cells"]
    assert {name: again[name] for name in record["cells"]} == record["cells"]
    assert set(again) - set(record["cells"]) == {f"{key}/protected/dog-1"}


def test_other_attackers_have_a_table_of_their_own(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gray box only of a row whose simulated attackers draw from pools."""
    pooled = {
        "attack_identifiers": ["zwx"], "attack_prompts": ["a picture of {}"], "protective_output": "pattern"
    }  # fmt: skip
    monkeypatch.setitem(rows.ROWS, "pooled", ("divert", pooled))
    path = tmp_path / "many_subjects.json"
    flags = [*quick, "--results", str(path), "--counts", "1", "--attackers"]
    many_subjects.cli([*flags, "paper,lora-4,gray-box", "--row", "pooled"])
    many_subjects.cli([*flags, "gray-box,lora-4", "--row", "divert"])
    cells = common.load(path)["cells"]
    assert "pooled, joint, 2/1/lora-4/person-0" in cells
    assert 0 <= cells["pooled, joint, 2/1/gray-box/person-0"]["protective"] <= 1
    for end in ("same class/person-50000", "another class/dog-50000", "quality"):
        assert 0 <= cells[f"pooled, joint, 2/1/{end}"]["protective"] <= 1  # who is shown it unasked
        assert "protective" not in cells[f"divert, joint, 2/1/{end}"]
    assert "divert, joint, 2/1/lora-4/person-0" in cells
    assert not any(name.startswith("divert") and "gray-box" in name for name in cells)
    shown = capsys.readouterr().out
    assert "| pooled, joint, 2 | 1 | gray-box |" in shown
    assert "| divert, joint, 2 | 1 | lora-4 |" in shown
