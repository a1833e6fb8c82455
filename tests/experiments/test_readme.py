"""The READMEs of benchmarks and experiments name commands, rows and files that exist."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import report
from experiments import apdm_search, rows

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "benchmarks" / "README.md", ROOT / "experiments" / "README.md", report.NOTES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = set(re.findall(r"python -m ((?:benchmarks|experiments)\.\w+)", text))
    assert modules
    assert all(find_spec(module) for module in modules)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert target.startswith("http") or (page.parent / target.partition("#")[0]).exists(), target


def test_every_row_in_a_command_exists() -> None:
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("python -m")]
    assert len(lines) > 50
    for words in lines:
        flags = dict(pairwise(words))
        if words[2] in {f"experiments.{name}" for name in ("immunization", "retention", "drift_curve")}:
            assert rows.rows_of(flags["--rows"])
        if words[2] == "experiments.many_subjects":
            assert rows.settings_of(flags["--row"])[0]
        if "--searches" in flags:
            assert set(flags["--searches"].split(",")) == set(apdm_search.SEARCHES)


def test_every_results_file_has_a_command() -> None:
    for folder in ("benchmarks", "experiments"):
        for file in (ROOT / folder / "results").glob("*.json"):
            assert report.file_of(file.stem) == file
