"""docs/immunize.md and the help are held to the program."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from unlikeness import immunize
from unlikeness.cli import immunize as cli

PAGE = (Path(__file__).parents[2] / "docs" / "immunize.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", immunize.names())
def test_every_method_and_setting_is_documented(name: str) -> None:
    assert f"| `{name}`" in PAGE
    assert name in str(cli.immunize.__annotations__["method"])
    for field in dataclasses.fields(immunize.method(name).settings_type):
        assert re.search(rf"`[^`\n]*\b{field.name}\b[^`\n]*`", PAGE), field.name
        assert field.metadata["doc"], field.name
