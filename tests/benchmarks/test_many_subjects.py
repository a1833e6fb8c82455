"""Many subjects in one model, from cell to table, on the embedded model in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common, many_subjects

pytestmark = pytest.mark.usefixtures("apart")


@pytest.mark.parametrize("schedule", many_subjects.SCHEDULES)
def test_from_cells_to_table(schedule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "many_subjects.json"
    flags = ["--quick", "--results", str(path), "--device", "cpu", "--schedule", schedule, "--counts", "2"]
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
