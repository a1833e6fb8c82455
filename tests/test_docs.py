"""The generated pages of the documentation cover every command, method and setting."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import typer

import generated
from unlikeness import immunize, personalize, protect
from unlikeness.cli.verbs import app_of

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
COMMANDS = generated.commands()
SETTINGS = generated.settings()
OTHERS = {
    "--help", "--size", "--square", "--limit", "--rows", "--proxy", "--extra-index-url", "--tag",
}  # fmt: skip
"""Flags of every command, of the benchmarks, of pip and Docker."""


def test_the_commands_page_has_every_command_and_flag() -> None:
    for context in generated.walk(typer.Context(typer.main.get_command(app_of()), info_name="unlikeness")):
        assert f"## {context.command_path}\n" in COMMANDS
        for parameter in context.command.params:
            record = parameter.get_help_record(context)
            assert record is None or record[0] in COMMANDS


@pytest.mark.parametrize("command", generated.settings_classes())
def test_the_settings_page_has_every_setting_with_its_meaning(command: str) -> None:
    for name, kind in generated.settings_classes()[command].items():
        assert f"### `{name}`\n" in SETTINGS
        for field in dataclasses.fields(kind):
            assert field.metadata["doc"], f"{kind.__name__}.{field.name} has no documentation"
            assert f"| `{field.name}` |" in SETTINGS


def test_every_public_name_of_the_api_is_on_a_page() -> None:
    pages = "\n".join(generated.api().values())
    assert "unlikeness.diffusion.model.TextToImage" in pages
    assert "unlikeness.immunize.run.immunize" in pages


@pytest.mark.parametrize(
    ("package", "page"), [(protect, "protect"), (immunize, "immunize"), (personalize, "attack")]
)
def test_a_guide_has_a_row_for_every_method(package: object, page: str) -> None:
    text = (DOCS / "guides" / f"{page}.md").read_text(encoding="utf-8")
    for name in package.names():  # type: ignore[attr-defined]
        assert re.search(rf"^\| `{name}`", text, re.MULTILINE), name


def test_the_navigation_names_every_page() -> None:
    config = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    named = set(re.findall(r"\S+\.md$", config, re.MULTILINE))
    assert named == written | set(generated.pages())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_and_setting_that_a_page_names_exists(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    code = re.findall(r"`[^`]+`", text)
    flags = {flag for part in code for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", part)}
    settings = {name for part in code for name in re.findall(r"--set ([a-z_]+)=", part)}
    assert not {flag for flag in flags if f"{flag} " not in COMMANDS.replace("`", " ")} - OTHERS
    assert not {name for name in settings if f"| `{name}` |" not in SETTINGS}
