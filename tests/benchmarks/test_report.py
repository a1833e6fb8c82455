"""Pages get their tables from the results files, and a stale page is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import claims, common, report
from unlikeness.errors import UnlikenessError

PAGE = "# Results\n\n<!-- figures: sd_memory -->\nold\n<!-- end of figures -->\n\nAnd more.\n"


def write(folder: Path, seconds: float) -> None:
    about = {"device": "a GPU", "steps": 2, "architecture": {"latent_size": 64}}
    results = common.Results(folder / "sd_memory.json", "sd_memory", about, fresh=True)
    results.cells["lora/float32"] = {
        "seconds_a_step": seconds, "memory_mib": 2048, "trained_parameters": 3_000_000,
    }  # fmt: skip
    results.finish({})


def test_pages_are_filled_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs, figures = tmp_path / "docs", tmp_path / "results"
    docs.mkdir()
    (docs / "results.md").write_text(PAGE)
    (docs / "other.md").write_text("no figures\n")
    write(figures, 0.25)
    where = ["--docs", str(docs), "--results", str(figures)]
    with pytest.raises(UnlikenessError, match=r"results\.md"):
        report.cli([*where, "--check"])
    report.cli(where)
    assert capsys.readouterr().out == "results.md\n"
    text = (docs / "results.md").read_text()
    assert "| lora | float32 | 3.0 M | 0.250 | 2.0 |" in text
    assert "old" not in text
    assert text.endswith("And more.\n")
    report.cli([*where, "--check"])
    write(figures, 0.5)
    with pytest.raises(UnlikenessError):
        report.cli([*where, "--check"])


def test_what_is_not_measured_says_so(tmp_path: Path) -> None:
    assert "Not measured yet: `python -m benchmarks.sd_memory`." in report.fill(PAGE, tmp_path)
    common.Results(tmp_path / "sd_memory.json", "sd_memory", {}).cell("a", lambda: {"s": 1})
    assert "Not finished yet" in report.fill(PAGE, tmp_path)
    with pytest.raises(UnlikenessError, match="no benchmark"):
        report.fill(PAGE.replace("sd_memory", "sd_memry"), tmp_path)


def test_the_documentation_shows_the_results_files() -> None:
    report.cli(["--check"])
    shown = "".join(page.read_text() for page in (*report.DOCS.glob("**/*.md"), report.NOTES))
    for name in (*report.BENCHMARKS, *claims.CLAIMS):
        assert f"<!-- figures: {name} -->" in shown


def test_claims_say_what_has_been_found_so_far(tmp_path: Path) -> None:
    def line(row: str, s: float) -> dict[str, object]:
        return {"row": row, "s": {"paper": s, "lora-16": 0.5}, "score": s, "drift": 0.1}

    rows = (("apdm-1@100", 0.0), ("apdm-1@200", 0.3), ("apdm-2@200", 0.2), ("apdm-2@200", 0.3))
    lines = [line(row, s) for row, s in rows]
    found = claims._best_so_far({"original": [line("none", 0.9)], "apdm": lines, "imma": []})
    assert found == [["search `apdm`: `apdm-2@200`", "0.25", "0.50 (lora-16)", None, "+10%", "2, of tuning"]]
