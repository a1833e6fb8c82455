"""Bring the cells of a copy of a results file, filled by another process, back into the file.

    cp experiments/results/NAME.json copy.json
    python -m experiments.NAME --results copy.json ...
    python -m experiments.merge experiments/results/NAME.json copy.json

The two files must be of the same benchmark with the same `about`, and must have begun with the same code;
both may have cells of newer code, added with --keep. If both have a cell, the file's own stays. The benchmark
itself updates the summary when it runs again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import common
from unlikeness.errors import UsageError


def cli(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("file", type=Path, help="gets the cells")
    parser.add_argument("copy", type=Path, help="has them")
    args = parser.parse_args(argv)
    theirs = common.load(args.copy)
    if not args.file.exists():
        raise UsageError(f"{args.file} does not exist; rename {args.copy} instead")
    results = common.Results(args.file, str(theirs.get("benchmark")), theirs.get("about") or {})
    code, others = (list(one.get("code") or ()) for one in (results.record, theirs))
    related = isinstance(theirs.get("code"), list) and others[:1] == code[:1]
    for name in ("benchmark", "id", "code"):
        if results.record.get(name) != theirs.get(name) and not (name == "code" and related):
            raise UsageError(
                f"{args.copy} is no copy of {args.file}: it has another {name}; only cells of the same "
                "benchmark and code belong together"
            )
    new = {key: cell for key, cell in theirs["cells"].items() if key not in results.cells}
    results.cells.update(new)
    results.record["code"] = list(dict.fromkeys([*code, *others]))
    results.save()
    print(f"{len(new)} cells from {args.copy}")


if __name__ == "__main__":
    common.main(cli)
