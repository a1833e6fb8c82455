"""The reference pages that are made from the code: commands, settings, Python API.

`pages()` returns Markdown by path below `docs/`. The site's hook (`hooks.py`) adds these pages to the build;
nothing is written into the source tree.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_type_hints

import typer

from unlikeness.cli.verbs import app_of
from unlikeness.presets import ATTACKS, preset_values
from unlikeness.settings import Checked

__all__ = ["api", "commands", "pages", "settings", "settings_classes", "walk"]

PUBLIC = {
    "Pictures": ["protect", "pictures"],
    "Models": ["immunize"],
    "Attacks": ["personalize", "purify"],
    "Measures": ["measure", "verify"],
    "Models and training": ["diffusion", "autoencoders", "subjects", "training"],
    "Tools": ["errors", "progress", "settings", "plugins"],
}
"""The documented subpackages; of each, the names in its `__all__`."""

FAMILIES = {
    "protect": "unlikeness protect",
    "immunize": "unlikeness immunize",
    "personalize": "unlikeness personalize",
    "purify": "unlikeness purify",
}
"""The tables of methods, and the command that their settings belong to."""

OTHERS = {
    "Verification": ("unlikeness verify", "verify.settings:VerifySettings"),
    "Training a protector": ("unlikeness train-protector", "protect.rid.train.recipe:ProtectorRecipe"),
    "A suite": ("unlikeness bench run", "bench.suites:Plan"),
    "A grid of a suite": ("unlikeness bench run", "bench.suites:Grid"),
    "The network, by --network": ("unlikeness train-protector", "protect.rid.settings:NetworkSettings"),
}
"""Settings classes that belong to no method: title -> command, home."""


def pages() -> dict[str, str]:
    """All generated pages, by path below `docs/`."""
    return {
        "reference/commands.md": commands(),
        "reference/settings.md": settings(),
        **{f"reference/api/{name}.md": text for name, text in api().items()},
    }


def commands() -> str:
    """Every command with its arguments and options."""
    top: Any = typer.Context(typer.main.get_command(app_of()), info_name="unlikeness")
    parts = [
        "# Commands",
        "This page is generated from the program. Each command also prints it: `unlikeness COMMAND --help`.",
        *map(_command, walk(top)),
    ]
    return "\n\n".join(parts) + "\n"


def walk(context: Any) -> Iterator[Any]:
    """A context for each command below this one; groups themselves are left out."""
    for name, command in context.command.commands.items():
        inner = typer.Context(command, info_name=name, parent=context)
        if hasattr(command, "commands"):
            yield from walk(inner)
        else:
            yield inner


def _command(context: Any) -> str:
    """One command's section."""
    records = [parameter.get_help_record(context) for parameter in context.command.params]
    rows = [_option(*record) for record in records if record is not None]
    usage = f"{context.command_path} {' '.join(context.command.collect_usage_pieces(context))}"
    return "\n\n".join(
        [
            f"## {context.command_path}",
            f"```text\n{usage}\n```",
            inspect.cleandoc(context.command.help or ""),
            "\n".join(["| option | what it does | default |", "|---|---|---|", *rows]),
        ]
    )


def _option(flags: str, text: str) -> str:
    """One row; the help's own [required], [default: ...; bounds] goes into the last column."""
    found = re.search(r"\s*\[((?:required|default: |[\d<x>=]+)[^]]*)\]$", text)
    doc = text[: found.start()] if found else text
    value = _code(found[1].replace("default: ", "")) if found else ""
    return f"| {_code(flags)} | {_cell(doc)} | {value} |"


def _cell(text: str) -> str:
    """Text that stands in one cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _code(text: str) -> str:
    """Code in one cell of a table, where no character needs an escape."""
    return f"`{' '.join(text.split())}`"


def settings_classes() -> dict[str, dict[str, type[Checked]]]:
    """By command, the settings classes of its methods by the methods' names."""
    found: dict[str, dict[str, type[Checked]]] = {}
    for package, command in FAMILIES.items():
        table = import_module(f"unlikeness.{package}")
        found[command] = {
            name: import_module(f"unlikeness.{package}").method(name).settings_type
            for name in table.names()
        }
    for title, (command, home) in OTHERS.items():
        module, _, name = home.partition(":")
        found.setdefault(command, {})[title] = getattr(import_module(f"unlikeness.{module}"), name)
    return found


def settings() -> str:
    """Every setting of every method: default with unit, allowed values, source."""
    parts = [
        "# Settings",
        "This page is generated from the settings classes. A setting that has no flag of its own is given as "
        "`--set NAME=VALUE`. A value outside the bounds is an error, and so is a name that the method does "
        "not have. Defaults are for Stable Diffusion; `--preset toybox` has others.",
    ]
    for command, classes in settings_classes().items():
        parts.append(f"## {command}")
        shown: dict[type[Checked], str] = {}
        for name, kind in classes.items():
            if kind in shown:
                parts += [f"### `{name}`", f"The settings of {shown[kind]}."]
                continue
            shown[kind] = name
            parts += [f"### `{name}`", _table(kind, _preset(command, name))]
        if command == "unlikeness personalize":
            parts += ["### Attackers of others, by `--preset`", _attacks()]
    return "\n\n".join(parts) + "\n"


def _preset(command: str, name: str) -> dict[str, object]:
    """What `--preset toybox` changes; of commands without presets nothing."""
    try:
        return preset_values(command.rpartition(" ")[2], "toybox", 64, name)
    except KeyError:
        return {}


def _attacks() -> str:
    """The presets that imitate others: a row each, with its settings and its source."""
    rows = ["| preset | method | what | settings | on the toybox | source |", "|---" * 6 + "|"]
    for one in ATTACKS:
        given = [
            ", ".join(f"`{name}={value}`" for name, value in values.items())
            for values in (one.values, one.toybox)
        ]
        cells = [f"`{one.name}`", f"`{one.method}`", one.what, *given, one.source]
        rows.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(rows)


def _table(kind: type[Checked], preset: dict[str, object]) -> str:
    hints = get_type_hints(kind)
    titles = ["setting", "meaning", "default", *["toybox"] * bool(preset), "allowed", "source"]
    rows = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for field in dataclasses.fields(kind):
        what = field.metadata
        default = field.default_factory() if callable(field.default_factory) else field.default
        cells = [f"`{field.name}`", _cell(what["doc"]), f"{_value(default)} {_cell(what['unit'])}".strip()]
        if preset:
            cells.append(_value(preset[field.name]) if field.name in preset else "")
        cells += [_bounds(what, hints[field.name]), _cell(what["source"])]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return _code(text) if text else "empty"


def _bounds(what: Any, hint: Any) -> str:
    if what.get("choices"):
        return ", ".join(f"`{choice}`" for choice in what["choices"])
    if hint is bool:
        return "on or off"
    above, low, high = what.get("above"), what.get("at_least"), what.get("at_most")
    parts = []
    if above is not None:
        parts.append(f"> {above:g}")
    if low is not None:
        parts.append(f"≥ {low:g}")
    if high is not None:
        parts.append(f"≤ {high:g}")
    return ", ".join(parts)


def api() -> dict[str, str]:
    """A page for each group of public subpackages, and the package itself: Markdown for mkdocstrings."""
    texts = {}
    for title, packages in PUBLIC.items():
        parts = [f"# {title}"]
        for package in packages:
            module = import_module(f"unlikeness.{package}")
            parts += [f"## `unlikeness.{package}`", _intro(module)]
            parts += [
                f"::: {home}\n    options:\n      heading_level: 3\n      heading: {package}.{name}\n"
                f"      toc_label: {name}"
                for name, home in _homes(module).items()
            ]
        texts[title.lower().replace(" ", "-")] = "\n\n".join(parts) + "\n"
    return texts


def _intro(module: Any) -> str:
    return (module.__doc__ or "").strip()


def _homes(module: Any) -> dict[str, str]:
    """Where the public names of a module are defined, as dotted paths, by name."""
    homes = {}
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if inspect.ismethod(value):  # `names = METHODS.names`
            owner = type(value.__self__)
            homes[name] = f"{owner.__module__}.{owner.__qualname__}.{value.__name__}"
        elif inspect.isclass(value) or inspect.isfunction(value):
            homes[name] = f"{value.__module__}.{value.__qualname__}"
        else:
            homes[name] = f"{module.__name__}.{name}"
    return homes
