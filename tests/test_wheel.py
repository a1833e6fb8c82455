"""The wheel holds all that belongs to the package, and protects a picture with its own requirements alone.

Nothing is fetched: hatchling builds, pip installs the wheel alone, and its requirements are links to the
packages that the tests run with. PyTorch is not among them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.protect.test_tiles import write

import unlikeness

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LARGEST = 45_000_000
"""Bytes of the wheel: the networks, and the toybox with its weights."""


def run(*words: str | Path, cwd: Path | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=900, cwd=cwd, env=environment
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", folder, cwd=ROOT)
    name = f"unlikeness-{unlikeness.__version__}"
    wheel, sdist = folder / f"{name}-py3-none-any.whl", folder / f"{name}.tar.gz"
    assert {*folder.iterdir()} == {wheel, sdist}
    return wheel, sdist


@pytest.fixture(scope="module")
def python(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel and the packages that it requires."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python3*/site-packages")
    for package in closure(metadata(built[0]).get_all("Requires-Dist") or []):
        for part in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            (site / part).symlink_to(Path(str(package.locate_file(part))))
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--no-index", "--no-deps", built[0])
    # The line that a message tells to type finds the package that is installed, and asks no index for it.
    said = run(*pip, "install", "--no-index", "unlikeness[lite]").stdout
    assert "already satisfied: unlikeness[lite]" in said
    return python


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


def closure(lines: list[str]) -> list[Distribution]:
    """The installed packages that these requirements ask for here, without extras, and what they ask for."""
    found: dict[str, Distribution] = {}
    waiting = list(lines)
    while waiting:
        one = Requirement(waiting.pop())
        if one.name not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            found[one.name] = distribution(one.name)
            waiting += found[one.name].requires or []
    return list(found.values())


def test_the_wheel_holds_every_file_of_the_package(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        names = set(archive.namelist())
        (scripts,) = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    source = ROOT / "src"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name and ".egg-info" not in name}
    info = f"unlikeness-{unlikeness.__version__}.dist-info"
    about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert names == files | {f"{info}/{name}" for name in about}
    assert "unlikeness/py.typed" in names
    assert "unlikeness = unlikeness.cli:main" in scripts
    assert built[0].stat().st_size < LARGEST


def test_the_wheel_says_what_it_is(built: tuple[Path, Path]) -> None:
    found = metadata(built[0])
    assert (found["Name"], found["Version"]) == ("unlikeness", unlikeness.__version__)
    assert (found["License-Expression"], found["License-File"]) == ("Apache-2.0", "LICENSE")
    assert {"lite", "models", "heif", "all"} <= set(found.get_all("Provides-Extra") or [])
    core = [line for line in found.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert {re.split(r"\W", line)[0] for line in core} == {
        "numpy", "onnxruntime", "pillow", "rich", "safetensors", "typer",
    }  # fmt: skip


def test_an_installed_wheel_protects_a_picture(python: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.png", 120, 90)
    program = python.with_name("unlikeness")
    assert run(program, "--version").stdout.split() == ["unlikeness", unlikeness.__version__]
    done = run(program, "protect", "a.png", "-o", "out", "--psnr", "38", cwd=tmp_path)
    assert done.stdout.startswith("1 protected")
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(line)["computed"]["engine"].startswith("onnxruntime")
    seen = run(program, "measure", "a.png", "out/a.png", "--json", cwd=tmp_path).stdout
    assert json.loads(seen)["pictures"][0]["psnr"] == pytest.approx(38, abs=2)
    said = run(program, "demo", cwd=tmp_path, status=1).stderr
    assert said.endswith('(torch is missing); pip install "unlikeness[models]"\n')
    where = run(python, "-c", "import unlikeness; print(unlikeness.__file__)", cwd=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(python.parents[1])


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for name in ("README.md", "Makefile", "Dockerfile", "constraints.txt", "tests", "docs", "integrations"):
        assert (folder / name).exists(), name
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=folder)
    assert contents(tmp_path / "again" / wheel.name) == contents(wheel)


def contents(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: one.CRC for one in archive.infolist() if not one.filename.endswith("RECORD")}
