"""How light the command line starts: by what is imported, not by the clock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


WRONG = [
    "protect nosuch -o x",
    "protect {photos} -o x --set bugdet=8",
    "protect {photos} -o x --method advdm --model nosuch",
    "protect {photos} -o x --method photoguard --set steps=0",
    "protect {photos} -o x --weights nosuch",
    "protect {photos} -o x --against ./nosuch.pth",
    "protect {photos} -o x --device gpu",
    "export -o x.onnx --weights nosuch",
    "personalize --images nosuch --class-noun dog --output x",
    "personalize --images {photos} --class-noun dog --output x --set rnak=4",
    "personalize --images {photos} --class-noun dog --output {photos}",
    "immunize --images nosuch --class-noun dog --output x",
    "immunize --images {photos} --class-noun dog --output x --set outer_step=4",
    "immunize --images {photos} --class-noun dog --output x --protective-output targt",
    "immunize --images {photos} --class-noun dog --output x --dtype half",
    "immunize --subjects nosuch.yaml --output x",
    "verify toybox --images nosuch --class-noun dog --output x",
    "verify nosuch --images {photos} --class-noun dog --output x",
    "verify toybox --images {photos} --class-noun dog --output x --attackers strong",
    "verify toybox --images {photos} --class-noun dog --output x --set step=4",
    "verify toybox --images {photos} --class-noun dog --output x --protective-output targt",
    "generate --prompt dog --output x --model nosuch",
    "generate --prompt dog --output x --sampler heun",
    "generate --prompt dog --output {photos}",
    "purify nosuch -o x",
    "purify {photos} -o x --method vae --model nosuch",
    "purify {photos} -o x --method vae:./nosuch",
    "purify {photos} -o x --method jpeg:101,blur",
    "purify {photos} -o x --set qualty=3",
    "measure nosuch nosuch",
    "measure similarity --subject nosuch --generated {photos} --class-images {photos}",
    "measure similarity --subject {photos} --generated {photos} --class-images {photos} --encoder vgg",
    "measure spoiled nosuch",
    "measure spoiled {photos} --clean nosuch",
    "train-protector -o x.safetensors --set step=4",
    "train-protector -o x.safetensors --images nosuch",
    "train-protector -o x.safetensors --model nosuch",
]
LONG = "n" * 250
WRONG += [
    f"immunize --images {{photos}} --class-noun dog --output {LONG}",  # whose checkpoint has a longer name
    f"personalize --images {{photos}} --class-noun dog --output {LONG}{LONG}",
    f"generate --prompt dog --output {LONG}{LONG}",
]
WRONG_ON_THE_TOYBOX = [
    "demo --photos nosuch",
    "demo --class-noun unicorn",
    "demo --method advmd",
    "toybox train vae --set step=4",
    "toybox train model --vae nosuch",
    "toybox render --class-noun unicorn --output x",
]


@pytest.mark.parametrize(
    ("lines", "heavy"),
    [
        (WRONG, [name for name in HEAVY if name != "yaml"]),
        (WRONG_ON_THE_TOYBOX, ["torch", "diffusers", "transformers"]),
    ],
    ids=["any", "toybox"],
)
def test_what_is_asked_wrongly_is_said_before_anything_heavy_is_loaded(
    lines: list[str], heavy: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    code = (
        "import json, sys; from unlikeness.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    status = main(words)\n"
        "    print(status, *(m for m in json.loads(sys.argv[2]) if m in sys.modules))\n"
    )
    words = [[str(tmp_path) if word == "{photos}" else word for word in line.split()] for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words), json.dumps(heavy)],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert dict(zip(lines, done.stdout.splitlines(), strict=True)) == dict.fromkeys(lines, "2"), done.stderr
    assert done.stderr.count("\n") == len(lines), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_protection_by_rid_loads_no_library_of_models(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 40, 30)
    status, modules, said = loaded_by(
        "protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"),
        of=("torch", "diffusers", "transformers", "accelerate", "peft", "scipy", "huggingface_hub"),
    )  # fmt: skip
    assert (status, modules) == (0, []), said


@pytest.mark.parametrize(
    "table",
    [
        protect.registry.METHODS,
        immunize.METHODS,
        personalize.METHODS,
        purify.METHODS,
    ],
    ids=lambda table: table.kind,
)
def test_settings_are_registered_beside_each_method_and_load_no_torch(table: Methods[Any, Any]) -> None:
    home = table.group
    place = f"{home}.registry" if home == "unlikeness.protect" else home
    code = (
        f"import sys; import {home}; from {place} import METHODS; "
        "assert all(METHODS.settings_type(name) for name in METHODS.homes); "
        "print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    for name in table.homes:
        assert table.settings_type(name) is table.load(name).settings_type
        assert table.needs_model(name) is getattr(table.load(name), "needs_model", table.kind == "protection")
