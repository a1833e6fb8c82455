"""A package of one file adds a protection, an attacker, a purifier and a metric. The guide's own example."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from tests.bench.conftest import SMALL, written

from unlikeness import immunize, personalize, protect, purify
from unlikeness.cli import main
from unlikeness.measure.metrics import METRICS
from unlikeness.protect.registry import METHODS as PROTECTIONS

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "benchmark.md"
REGISTRIES = (PROTECTIONS, immunize.METHODS, personalize.METHODS, purify.METHODS, METRICS)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The package of the guide, installed as pip would leave it."""
    text = GUIDE.read_text(encoding="utf-8")
    found = re.search(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL)
    entries = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert found
    assert entries
    home = tmp_path / "site"
    about = home / "mine-1.0.dist-info"
    about.mkdir(parents=True)
    (home / f"{found[1]}.py").write_text(found[2], encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    lines = re.sub(r'\[project\.entry-points\."(.*?)"\]', r"[\1]", entries[1]).replace('"', "")
    (about / "entry_points.txt").write_text(lines)
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.delitem(sys.modules, found[1], raising=False)
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_outside", None)
    return found[1]


def test_a_package_of_one_file_appears_everywhere(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert protect.names()[-1] == "darker"
    assert personalize.names()[-1] == "lazy"
    for command, name in (("protect", "darker"), ("personalize", "lazy"), ("purify", "mirror")):
        assert main([command, "--help"]) == 0
        assert f"Methods of other packages: {name}." in capsys.readouterr().out
    assert main(["bench", "list"]) == 0
    listed = capsys.readouterr().out
    for name in ("darker", "lazy", "mirror", "brightness"):
        assert re.search(rf"^  {name} .*\(of another package: {package}:", listed, re.MULTILINE), name
    content = {
        **SMALL, "protect": {"darker": {"share": 0.5}}, "attack": {**SMALL["attack"]},
        "grids": [{"defences": ["darker"], "attackers": ["lazy"], "purifiers": ["mirror"]}],
    }  # fmt: skip
    out = tmp_path / "out"
    assert main(["bench", "run", str(written(tmp_path, content)), "--output", str(out), "-q"]) == 0
    cells = [json.loads(path.read_text()) for path in (out / "cells").glob("*.json")]
    (one,) = [cell for cell in cells if cell["cell"]["defence"]["name"] == "darker"]
    assert one["figures"]["visible"]["linf"] == pytest.approx(4, abs=0.6)
    assert one["figures"]["metrics"]["brightness"]["clean"] is not None
    assert one["identity"]["defence"]["settings"] == {"budget": 8.0, "share": 0.5}
    assert main(["bench", "report", str(out)]) == 0
    assert "brightness metric" in (out / "report.csv").read_text()
    content["protect"] = {"darker": {"shaer": 0.5}}
    assert main(["bench", "run", str(written(tmp_path, content)), "--output", str(out), "-q"]) == 2
    assert "shaer is no setting of DarkerSettings (did you mean share?)" in capsys.readouterr().err


def test_a_metric_that_breaks_its_promise_fails_its_cell(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(METRICS.load("brightness"), "measure", lambda self, drawn: torch.tensor([1.0]))
    content = {**SMALL, "grids": [{}]}
    out = tmp_path / "out"
    assert main(["bench", "run", str(written(tmp_path, content)), "--output", str(out), "-q"]) == 1
    (record,) = [json.loads(path.read_text()) for path in (out / "cells").glob("*.json")]
    assert record["sentence"].startswith("metric brightness must give one finite number a picture")
