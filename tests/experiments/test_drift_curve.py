"""The drift of the FID, from cell to table and picture, on the embedded model in small."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks import common
from experiments import drift_curve
from unlikeness.errors import UsageError

pytestmark = pytest.mark.usefixtures("apart")


def test_from_cells_to_table_and_picture(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "drift_curve.json"
    drift_curve.cli([*quick, "--results", str(path), "--rows", "adversarial"])
    record = common.load(path)
    assert set(record["cells"]) == {f"adversarial/person-0/{n}" for n in (1, 2)}
    first, second = (record["cells"][f"adversarial/person-0/{n}"]["fid"] for n in (1, 2))
    assert first != second
    summary = record["summary"]["adversarial"]
    original = record["cells"]["adversarial/person-0/1"]["fid_original"]
    assert summary["1"]["drift"] == pytest.approx(first / original - 1)
    assert drift_curve.render(record) in capsys.readouterr().out
    assert Image.open(path.with_suffix(".png")).width > 300


def test_a_row_whose_end_depends_on_its_length_is_refused(quick: list[str]) -> None:
    with pytest.raises(UsageError, match="cannot be stopped on the way"):
        drift_curve.cli([*quick, "--rows", "divert"])
