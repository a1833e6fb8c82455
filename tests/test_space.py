"""The README of a Hugging Face Space: the hub reads its front matter, and its lines make the Space."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from tests.test_readme import lines, parse

from unlikeness.page.build import STATIC

README = Path(__file__).parents[1] / "integrations" / "space" / "README.md"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def front_matter() -> dict[str, Any]:
    _, head, _ = README.read_text(encoding="utf-8").split("---\n", 2)
    found = yaml.safe_load(head)
    assert isinstance(found, dict)
    return found


def test_the_front_matter_is_a_static_space_of_the_page() -> None:
    said = front_matter()
    assert (said["sdk"], said["license"]) == ("static", "apache-2.0")
    assert (STATIC / said["app_file"]).is_file()
    assert {said["colorFrom"], said["colorTo"]} <= COLOURS
    assert len(said["short_description"]) <= 60
    assert set(said["custom_headers"]) == {
        "cross-origin-embedder-policy", "cross-origin-opener-policy", "cross-origin-resource-policy",
    }  # fmt: skip
    assert not (STATIC / "README.md").exists(), "which this file would hide"


def test_the_lines_make_it() -> None:
    (text,) = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (arguments,) = lines(text, "unlikeness")
    parse(arguments)
    (copy,) = lines(text, "cp")
    assert (README.parents[2] / copy[0]).samefile(README)
    assert arguments[arguments.index("--output") + 1] == copy[1].rstrip("/")
    assert shlex.split(text.splitlines()[-1])[:4] == ["hf", "upload", "--repo-type", "space"]
