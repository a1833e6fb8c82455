"""How light the command line starts: by what is imported, not by the clock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.protect.test_tiles import write

from unlikeness import immunize, personalize, protect, purify
from unlikeness.plugins import Methods

HEAVY = ("torch", "numpy", "PIL", "diffusers", "transformers", "safetensors", "yaml", "jinja2")


def loaded_by(*arguments: str, of: tuple[str, ...] = HEAVY) -> tuple[int, list[str], str]:
    """Status of a command line in a process of its own, which of the modules it imported, and its stderr."""
    code = (
        "import sys; from unlikeness.cli import main; status = main(sys.argv[1:]); "
        f"print(); print(status, *(m for m in {of!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    status, *modules = done.stdout.splitlines()[-1].split()
    return int(status), modules, done.stderr


@pytest.mark.parametrize("words", [[], ["protect"], ["verify"], ["measure", "similarity"]])
def test_help_loads_neither_what_works_nor_what_draws_frames(words: list[str]) -> None:
    status, modules, _ = loaded_by(*words, "--help", of=(*HEAVY, "rich.console", "pydantic"))
    assert (status, modules) == (0, [])


@pytest.mark.parametrize(
    "line",
    [
        "protect nosuch -o x",
        "protect nosuch -o x --set bugdet=8",
        "protect nosuch -o x --method advdm --model nosuch",
        "protect nosuch -o x --method photoguard --set steps=0",
    ],
)
def test_what_is_asked_wrongly_is_said_before_anything_heavy_is_loaded(line: str) -> None:
    status, modules, said = loaded_by(*line.split())
    assert (status, modules) == (2, []), said
    assert said.count("\n") == 1


def test_a_protection_by_rid_loads_no_library_of_models(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 40, 30)
    status, modules, said = loaded_by(
        "protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"),
        of=("torch", "diffusers", "transformers", "accelerate", "peft", "scipy", "huggingface_hub"),
    )  # fmt: skip
    assert (status, modules) == (0, ["torch"]), said


@pytest.mark.parametrize(
    "table",
    [
        protect.registry.METHODS,
        immunize.registry.METHODS,
        personalize.registry.METHODS,
        purify.registry.METHODS,
    ],
    ids=lambda table: table.kind,
)
def test_settings_are_registered_beside_each_method_and_load_no_torch(table: Methods) -> None:
    home = table.group
    code = (
        f"import sys; from {home}.registry import METHODS; import {home}; "
        "assert all(METHODS.settings(name) for name in METHODS.homes); "
        "print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    for name in table.homes:
        assert table.settings(name) is table.load(name).settings_type
        if table.needs_model(name) is not None:
            assert table.needs_model(name) is table.load(name).needs_model
