"""Two processes fill one benchmark's cells, and their files become one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import common
from experiments import merge
from unlikeness.errors import UsageError


def test_the_cells_of_a_copy_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, copy = tmp_path / "x.json", tmp_path / "copy.json"
    mine = common.Results(file, "x", {"seed": 0}, code="abc")
    mine.cell("a", lambda: {"s": 1.0})
    shutil.copy(file, copy)
    theirs = common.Results(copy, "x", {"seed": 0}, code="abc")
    assert theirs.work == mine.work
    theirs.cell("b", lambda: {"s": 2.0})
    theirs.cell("c", lambda: {"s": 3.0})
    mine.cell("c", lambda: {"s": 4.0})
    merge.cli([str(file), str(copy)])
    assert {key: cell["s"] for key, cell in common.load(file)["cells"].items()} == {"a": 1, "b": 2, "c": 4}
    assert "1 cells from" in capsys.readouterr().out


def test_a_copy_may_have_been_kept_by_newer_code(tmp_path: Path) -> None:
    file, copy = tmp_path / "x.json", tmp_path / "copy.json"
    common.Results(file, "x", {"seed": 0}, code="abc").cell("a", lambda: {"s": 1.0})
    shutil.copy(file, copy)
    common.Results(copy, "x", {"seed": 0}, code="def", keep=True).cell("b", lambda: {"s": 2.0})
    merge.cli([str(file), str(copy)])
    assert list(common.load(file)["cells"]) == ["a", "b"]
    assert common.load(file)["code"] == ["abc", "def"]
    common.Results(file, "x", {"seed": 0}, code="ghi", keep=True).cell("c", lambda: {"s": 3.0})
    merge.cli([str(copy), str(file)])
    assert common.load(copy)["code"] == ["abc", "def", "ghi"]
    with pytest.raises(UsageError, match="another code"):
        merge.cli([str(copy), str(_older(file))])


def _older(file: Path) -> Path:
    """A copy by code that the file does not begin with."""
    found = {**common.load(file), "code": ["xyz", "abc"]}
    other = file.with_name("older.json")
    other.write_text(json.dumps(found), encoding="utf-8")
    return other


@pytest.mark.parametrize("name", ["about", "code", "benchmark", "id"])
def test_what_is_no_copy_is_refused(name: str, tmp_path: Path) -> None:
    file, copy = tmp_path / "x.json", tmp_path / "copy.json"
    common.Results(file, "x", {"seed": 0}, code="abc").save()
    other = {**common.load(file), name: {"seed": 1} if name == "about" else "other"}
    copy.write_text(json.dumps(other), encoding="utf-8")
    before = file.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match=r"another|no copy"):
        merge.cli([str(file), str(copy)])
    assert file.read_text(encoding="utf-8") == before
    with pytest.raises(UsageError, match="does not exist"):
        merge.cli([str(tmp_path / "none.json"), str(copy)])
