"""The documentation is held to the program: commands parse and run, imports exist, links lead somewhere.

A page's blocks run in order, in one folder, on the toybox, with `TINY` settings. A line that names a file
below ~/ needs the reader's own model and is only parsed. A YAML block whose first line is a comment with a
file name is written to that file.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import generated
from unlikeness.cli import main
from unlikeness.cli.verbs import app_of
from unlikeness.diffusion import TextToImage

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("[be]*/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
RUN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path, program: str) -> list[list[str]]:
    """The arguments of each line in a page's shell blocks that calls `program`."""
    return [found for text in blocks(page, "sh") for found in lines(text, program)]


def lines(text: str, program: str) -> list[list[str]]:
    """The arguments of each line of a shell block that calls `program`."""
    words = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [rest for first, *rest in filter(None, words) if first.rpartition("/")[2] == program]


@cache
def program() -> Any:
    """All commands: making them costs more than to parse a line."""
    return typer.main.get_command(app_of())


def parse(arguments: list[str]) -> None:
    """Parse as the program would, down to the last command, and run nothing."""
    command = program()
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
    assert {arguments[0] for arguments in shown} == set(program().commands)


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


@cache
def made_pages() -> set[Path]:
    """The pages that are made from the code when the site is built."""
    return {(ROOT / "docs" / path).resolve() for path in generated.pages()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    made = made_pages()
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            file = (page.parent / target.partition("#")[0]).resolve()
            assert file.exists() or file in made, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_examples_are_valid_and_import_what_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "unlikeness":
                module = import_module(str(node.module))
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    assert hasattr(module, alias.name) or find_spec(name), name


TINY: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "protect": ({"--steps": "1"}, {}),
    "train-protector": (
        {"--steps": "3", "--batch-size": "2", "--learning-rate": "0.1"},
        {"renders": "8", "leaves": "8", "warmup": "0"},
    ),
    "personalize": ({"--steps": "1", "--class-images": "2"}, {"class_steps": "2"}),
    "generate": ({"--count": "2", "--steps": "2"}, {}),
    "immunize": (
        {"--outer-steps": "1", "--inner-steps": "1"},
        {
            "attack_depth": "0", "batch_size": "1", "attack_batch_size": "1", "preserve_batch_size": "1",
            "class_images": "5", "class_steps": "1", "output_pictures": "1",
        },
    ),
    "verify": (
        {"--attackers": "paper"},
        {
            "steps": "1", "batch_size": "1", "class_images": "2", "class_steps": "1", "solver_steps": "1",
            "pictures": "2", "pictures_in_context": "1", "others_of_class": "3",
        },
    ),
}  # fmt: skip
"""By command, flags and settings that make it quick."""

ENDLESS = ("serve", "publish")
"""Commands that do not end by themselves, or send something."""


def tiny(arguments: list[str]) -> list[str]:
    """The arguments, with the flags and settings of `TINY` in place of the page's own."""
    if arguments[:2] == ["bench", "run"] and "--dry-run" not in arguments:
        arguments = [*arguments[:2], str(ROOT / "tests" / "bench" / "small.yaml"), *arguments[3:]]
    flags, values = TINY.get(arguments[0], ({}, {}))
    if arguments[0] == "protect" and "--model" not in arguments:
        flags = {}
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in flags:
            next(words)
        elif word == "--set":
            pair = next(words)
            kept += [] if pair.partition("=")[0] in values else [word, pair]
        else:
            kept.append(word)
    for flag, value in flags.items():
        kept += [flag, value]
    for name, value in values.items():
        kept += ["--set", f"{name}={value}"]
    return [*kept, "--no-quality"] if arguments[0] == "verify" else kept


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a page names no number of solver steps, models draw in two; a dry run leaves out its probe."""
    opened = TextToImage.from_pretrained

    def quick(*given: Any, **how: Any) -> TextToImage:
        model = opened(*given, **how)
        model.defaults = replace(model.defaults, steps=2)
        return model

    monkeypatch.setattr(TextToImage, "from_pretrained", quick)
    monkeypatch.setattr("unlikeness.immunize.cost._outer", lambda *_: 1.0)
    monkeypatch.setattr("unlikeness.immunize.cost._drawing", lambda *_: 1.0)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        name = re.match(r"# (\S+\.yaml)\n", text)
        if language == "yaml" and name:
            Path(name[1]).write_text(text, encoding="utf-8")
        elif language == "python":
            module = ModuleType("example")
            monkeypatch.setitem(sys.modules, "example", module)  # dataclasses look their module up
            exec(compile(text, page.name, "exec"), vars(module))
        elif language == "sh":
            for arguments in lines(text, "unlikeness"):
                theirs = any(word.startswith("~/") for word in arguments)
                if not theirs and arguments[:2] != ["toybox", "train"] and arguments[0] not in ENDLESS:
                    assert main(tiny(arguments)) == 0, arguments
