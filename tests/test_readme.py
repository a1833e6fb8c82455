"""The documentation is held to the program: commands parse, imports exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from unlikeness.cli.verbs import app_of

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path, program: str) -> list[list[str]]:
    """The arguments of each line in a page's shell blocks that calls `program`."""
    lines = [line for text in blocks(page, "sh") for line in text.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [rest for first, *rest in filter(None, words) if first.rpartition("/")[2] == program]


def parse(arguments: list[str]) -> None:
    """Parse as the program would, down to the last command, and run nothing."""
    command: Any = typer.main.get_command(app_of())
    context = command.make_context("unlikeness", list(arguments))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_line_parses(page: Path) -> None:
    for arguments in commands(page, "unlikeness"):
        parse(arguments)


def test_the_readme_shows_every_command() -> None:
    shown = commands(ROOT / "README.md", "unlikeness")
    assert {arguments[0] for arguments in shown} == set(typer.main.get_command(app_of()).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        "protekt photos --output a",
        "protect photos --output a --bugdet 8",
        "protect photos",
        "toybox train vea",
    ],
)
def test_a_wrong_command_line_would_be_noticed(line: str) -> None:
    with pytest.raises(typer.TyperException):
        parse(line.split())


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for arguments in commands(ROOT / "README.md", "make"):
        assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), arguments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_examples_are_valid_and_import_what_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "unlikeness":
                module = import_module(str(node.module))
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    assert hasattr(module, alias.name) or find_spec(name), name
