"""Write the tables of the benchmarks into the documentation, so that no figure is typed by hand.

    python -m benchmarks.report            fill docs/*.md and experiments/NOTES.md
    python -m benchmarks.report --check    change nothing; status 1 if a page does not show the results files

A page says where a table goes:

    <!-- figures: toybox_quality -->
    <!-- end of figures -->

What lies between is replaced by what `render` of that module makes of its results file, or by a table of
`benchmarks.claims`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import common
from benchmarks.claims import CLAIMS
from unlikeness.errors import UnlikenessError

BENCHMARKS = {
    name: f"benchmarks.{name}"
    for name in (
        "toybox_quality", "personalization", "protection", "other_attackers", "attack_floor", "photographs",
        "rid_speed", "start_up", "browser_page", "rid_int8", "sd_memory", "hostile", "immunize_cost",
        "family_memory", "serving", "objectives",
    )
} | {
    "real_encoders": "benchmarks.real_encoders FOLDER --against taef2_encoder.pth,taesana_encoder.pth",
    "real_encoders_192": "benchmarks.real_encoders FOLDER --against taef2_encoder.pth,taesana_encoder.pth "
    "--square 192 --limit 12 --rows encoder,encoder-everywhere,encoder-plain",
    "immunize_cost_sd": "benchmarks.immunize_cost --size sd",
    "immunization_tuning": "experiments.immunization --tuning",
    **{
        name: f"experiments.{name}"
        for name in (
            "immunization", "drift_curve", "drift_parts", "many_subjects", "retention", "apdm_search",
            "frozen_loss", "rid_ablation", "rid_ways", "toybox_autoencoder", "attackers",
        )
    },
}  # fmt: skip
"""The command that measures each: a module with `render`, and its flags."""
DOCS = common.ROOT / "docs"
NOTES = common.ROOT / "experiments" / "NOTES.md"

_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def cli(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    parser.add_argument("--docs", type=Path, help="a folder of pages instead of docs and experiments")
    parser.add_argument("--results", type=Path, help="one folder of results files instead of both")
    args = parser.parse_args(argv)
    stale = []
    pages = args.docs.glob("*.md") if args.docs else [*DOCS.glob("**/*.md"), NOTES]
    for page in sorted(pages):
        text = page.read_text(encoding="utf-8")
        filled = fill(text, args.results)
        if filled != text:
            stale.append(page.name)
            if not args.check:
                page.write_text(filled, encoding="utf-8")
                print(page.name)
    if args.check and stale:
        raise UnlikenessError(f"{', '.join(stale)}: not what the results files say; run benchmarks.report")


def fill(text: str, results: Path | None = None) -> str:
    """The page with every table made anew. UnlikenessError for a name that is no benchmark's."""

    def table(found: re.Match[str]) -> str:
        name = found[2]
        if name in CLAIMS:
            return f"{found[1]}{claim(name, results)}\n{found[3]}"
        if name not in BENCHMARKS:
            raise UnlikenessError(f"{name} is no benchmark; there are {', '.join((*BENCHMARKS, *CLAIMS))}")
        return f"{found[1]}{section(name, results)}\n{found[3]}"

    return _PLACE.sub(table, text)


def file_of(name: str, results: Path | None = None) -> Path:
    """A measurement's results file."""
    return (results or common.ROOT / BENCHMARKS[name].partition(".")[0] / "results") / f"{name}.json"


def claim(name: str, results: Path | None = None) -> str:
    """A claim's table and the commands that measured its figures."""
    make, modules = CLAIMS[name]
    body = make(lambda one: common.load(file_of(one, results))["summary"])
    commands = ", ".join(f"`python -m {module}`" for module in modules)
    return f"{body}\n\nFrom {commands}. Intervals: 95 %, bootstrap."


def section(name: str, results: Path | None = None) -> str:
    """One benchmark's tables and the command that made them."""
    module, _, _ = BENCHMARKS[name].partition(" ")
    command = f"`python -m {BENCHMARKS[name]}`"
    path = file_of(name, results)
    if not path.exists():
        return f"Not measured yet: {command}."
    record = common.load(path)
    if "environment" not in record:
        return f"Not finished yet: {command}."
    body: str = import_module(module).render(record)
    versions = record.get("environment", {}).get("versions", {})
    shown = ", ".join(f"{package} {number}" for package, number in versions.items() if package != "python")
    figures = f"`{module.partition('.')[0]}/results/{name}.json`"
    return f"{body}\n\nMade by {command} ({shown}); all figures: {figures}."


if __name__ == "__main__":
    common.main(cli)
