"""The Dockerfile, as far as it can be read without Docker: what it copies and the extras it names exist."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
KNOWN = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR"}


def instructions(text: str) -> list[tuple[str, str]]:
    """(word, the rest) of each instruction, with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


STEPS = instructions(TEXT)
ARGS = dict(rest.split("=", 1) for word, rest in STEPS if word == "ARG")
STAGES = [i for i, (word, _) in enumerate(STEPS) if word == "FROM"]


def copied() -> list[str]:
    """What is copied from the repository; what comes from the stage before is none of it."""
    words = [shlex.split(rest) for word, rest in STEPS if word == "COPY"]
    return [name for one in words if not one[0].startswith("--from") for name in one[:-1]]


def sent(name: str) -> bool:
    """Whether .dockerignore lets a path of the repository through. The last line that matches decides."""
    through, path = True, Path(name)
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        for part in [path, *path.parents[:-1]]:
            seen, asked = (part.name, pattern[3:]) if pattern.startswith("**/") else (str(part), pattern)
            if pattern and pattern[0] != "#" and fnmatch(seen, asked):
                through = line.startswith("!")
    return through


def test_every_line_is_an_instruction() -> None:
    assert {word for word, _ in STEPS} <= KNOWN
    assert [rest.split()[0] for word, rest in STEPS if word == "FROM"] == ["python:${PYTHON}-slim"] * 2
    for word in ("CMD", "ENTRYPOINT"):
        (words,) = [json.loads(rest) for name, rest in STEPS if name == word]
        assert all(isinstance(one, str) for one in words)


def test_the_python_is_the_one_of_the_constraints() -> None:
    assert f"for Python {ARGS['PYTHON']}:" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"{ARGS['PYTHON']}.0" in SpecifierSet(PROJECT["project"]["requires-python"])


def test_what_is_copied_exists_is_sent_and_is_all_that_a_build_reads() -> None:
    for name in copied():
        assert (ROOT / name).exists(), name
        assert sent(name), name
    assert sent("src/unlikeness/cli/__init__.py")
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    read = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    read |= {Path(one).parts[0] for one in [*wheel["packages"], *wheel["artifacts"]]}
    assert read | {"constraints.txt"} == set(copied())


@pytest.mark.parametrize("name", [".git/config", ".env", ".venv", "tests", "build", "key.pem", ".npmrc"])
def test_nothing_else_is_sent_to_the_builder(name: str) -> None:
    assert not sent(name)
    assert not sent("src/unlikeness/__pycache__/x.pyc")


def test_every_extra_that_is_named_exists() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    named = [ARGS["EXTRAS"], *re.findall(r"EXTRAS=([\w,]+)", TEXT)]
    assert len(named) == 4
    assert {one for names in named for one in names.split(",")} <= set(extras)
    (line,) = [rest for word, rest in STEPS if word == "RUN" and "pip install" in rest]
    assert '-c constraints.txt --extra-index-url "${TORCH_INDEX}" ".[${EXTRAS}]"' in line
    assert ARGS["TORCH_INDEX"].startswith("https://")


def test_it_runs_as_no_root_and_holds_no_secret() -> None:
    last = STEPS[STAGES[-1] :]
    (user,) = [rest for word, rest in last if word == "USER"]
    assert user not in ("root", "0")
    words = " ".join(rest for word, rest in STEPS if word in ("ARG", "ENV", "RUN"))
    assert not re.search(r"token|secret|passw|api_?key", words, re.IGNORECASE)
    assert [word for word, _ in last].count("RUN") == 1
    assert "COPY" in [word for word, _ in last], "the tools of the build stay behind"
