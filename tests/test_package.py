"""The package imports lightly and answers quickly."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, entry_points, metadata
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import unlikeness

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "module", ["unlikeness", "unlikeness.cli", "unlikeness.measure", "unlikeness.progress"]
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    done = python(f"import {module}, sys; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert unlikeness.__version__ == project["version"]


def test_every_pinned_package_allows_the_oldest_python() -> None:
    """Of those that are installed here."""
    checked = 0
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, equal, _ = line.partition("==")
        with contextlib.suppress(PackageNotFoundError):
            wanted = metadata(name)["Requires-Python"] if equal else None
            assert wanted is None or "3.11.0" in SpecifierSet(wanted), f"{name} needs Python {wanted}"
            checked += wanted is not None
    assert checked > 20


def test_console_script_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="unlikeness")
    assert script.value == "unlikeness.cli:main"


def test_types_are_announced() -> None:
    assert files("unlikeness").joinpath("py.typed").is_file()


def test_unknown_attribute_is_named() -> None:
    with pytest.raises(AttributeError, match="no attribute 'unlikely'"):
        _ = unlikeness.unlikely


def test_everything_needed_is_pinned_exactly() -> None:
    """Each direct requirement stands in constraints.txt as name==version, torch without a local suffix."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["dev"], *extras["all"], "hatchling", "editables"]
    for extra in re.split(r"[\[\],]", extras["all"][0])[1:-1]:
        asked += extras[extra]
    wanted = {name_of(one) for one in asked} - {"unlikeness"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert wanted <= {name_of(name) for name in pins}
    assert "+" not in pins["torch"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[>=]", requirement)[0].strip().lower().replace("_", "-")
