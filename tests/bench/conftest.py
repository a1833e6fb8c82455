"""A suite of three cells on the toybox, for seconds, and the folder of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from unlikeness.bench.suites import OWN
from unlikeness.cli import main

IMMUNIZED: dict[str, Any] = {
    "outer_steps": 1, "inner_steps": 1, "attack_depth": 0, "batch_size": 1, "attack_batch_size": 1,
    "preserve_batch_size": 1, "class_images": 5, "class_steps": 1,
}  # fmt: skip
SMALL: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("small.yaml").read_text(encoding="utf-8"))
ATTACK: dict[str, Any] = SMALL["attack"]


def cut_down(name: str) -> dict[str, Any]:
    """A shipped suite's content with settings for seconds."""
    content: dict[str, Any] = yaml.safe_load((OWN / f"{name}.yaml").read_text(encoding="utf-8"))
    content |= {"pictures": 2, "attack": ATTACK}
    content["immunize"] = {"divert": IMMUNIZED}
    return content


def written(folder: Path, content: dict[str, Any], name: str = "small") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a whole run of `SMALL`. Tests do not change it."""
    folder = tmp_path_factory.mktemp("bench")
    assert main(["bench", "run", str(written(folder, SMALL)), "--output", str(folder / "out"), "-q"]) == 0
    return folder / "out"
