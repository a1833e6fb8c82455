"""What the tests of the folder job share: a run, and what it left behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlikeness.protect.base import Perturber
from unlikeness.protect.files.folder import Outcome, protect_folder
from unlikeness.protect.files.manifest import NAME

GOOD = ["a.png", "b.jpg", "z.webp", "deep/a.png", "deep/er/c.bmp"]


def run(paths: Path | Sequence[Path], output: Path, perturber: Perturber, **options: Any) -> Outcome:
    named = [paths] if isinstance(paths, Path) else paths
    return protect_folder(named, output, perturber, method="noise", model="tiny", **options)


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / NAME).read_text().splitlines()]


def timeless(output: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": None} for line in lines(output)]


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
