"""Write the tables of the benchmarks into the documentation, so that no figure is typed by hand.

    python -m benchmarks.report            fill docs/*.md
    python -m benchmarks.report --check    change nothing; status 1 if a page does not show the results files

A page says where a table goes:

    <!-- figures: toybox_quality -->
    <!-- end of figures -->

What lies between is replaced by what `render` of that benchmark makes of its JSON in benchmarks/results.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import common
from unlikeness.errors import UnlikenessError

BENCHMARKS = (
    "toybox_quality", "personalization", "protection", "other_attackers", "frozen_loss", "photographs",
    "rid_ablation", "rid_ways", "rid_speed", "rid_int8", "sd_memory", "hostile",
    "attack_floor", "immunization", "drift_curve", "drift_parts", "many_subjects", "retention",
    "immunize_cost", "immunize_cost_sd", "immunization_tuning", "apdm_search",
)  # fmt: skip
FLAGS = {
    "immunize_cost_sd": ("immunize_cost", " --size sd"),
    "immunization_tuning": ("immunization", " --tuning"),
}
"""Of figures that a benchmark makes only with these flags: its name and they."""
DOCS = Path(__file__).parents[1] / "docs"

_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def cli(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args(argv)
    stale = []
    for page in sorted(args.docs.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        filled = fill(text, args.results)
        if filled != text:
            stale.append(page.name)
            if not args.check:
                page.write_text(filled, encoding="utf-8")
                print(page.name)
    if args.check and stale:
        raise UnlikenessError(f"{', '.join(stale)}: not what benchmarks/results says; run benchmarks.report")


def fill(text: str, results: Path) -> str:
    """The page with every table made anew. UnlikenessError for a name that is no benchmark's."""

    def table(found: re.Match[str]) -> str:
        name = found[2]
        if name not in BENCHMARKS:
            raise UnlikenessError(f"{name} is no benchmark; there are {', '.join(BENCHMARKS)}")
        return f"{found[1]}{section(name, results)}\n{found[3]}"

    return _PLACE.sub(table, text)


def section(name: str, results: Path) -> str:
    """One benchmark's tables and the command that made them."""
    module, flags = FLAGS.get(name, (name, ""))
    command = f"`python -m benchmarks.{module}{flags}`"
    path = results / f"{name}.json"
    if not path.exists():
        return f"Not measured yet: {command}."
    record = common.load(path)
    if "environment" not in record:
        return f"Not finished yet: {command}."
    body: str = import_module(f"benchmarks.{module}").render(record)
    versions = record.get("environment", {}).get("versions", {})
    shown = ", ".join(f"{package} {number}" for package, number in versions.items() if package != "python")
    figures = f"[{name}.json](../benchmarks/results/{name}.json)"
    return f"{body}\n\nMade by {command} ({shown}); all figures: {figures}."


if __name__ == "__main__":
    common.main(cli)
