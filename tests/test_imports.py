"""Imports point down the layout, and no two files import each other.

Three kinds of imports are told apart:

- at import time: on the level of a module or class;
- local: inside a function, which runs later;
- for types: under `if TYPE_CHECKING`, which never runs.

A circle counts only among imports at import time, file by file: that Python also imports the packages around
a module does not count. The order of the layout counts for all three kinds, since a file that names a
folder's types or calls it later depends on it just the same. Names that a registry loads by text
("package.module:Class") are no imports: so a command can offer methods that it does not know.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src"
PACKAGE = "unlikeness"

TOOLS = "tools"
"""The small shared files beside the folders."""

_LOW = {TOOLS, "pictures", "networks", "autoencoders", "toybox", "subjects", "training"}
_ATTACKS = {*_LOW, "diffusion", "personalize", "purify"}
_ALL = {*_ATTACKS, "protect", "immunize", "measure", "verify", "bench"}

ALLOWED: dict[str, set[str]] = {
    TOOLS: {TOOLS},
    "pictures": {TOOLS},
    "networks": {TOOLS},
    "autoencoders": {TOOLS, "networks"},
    "subjects": {TOOLS, "pictures"},
    "training": {TOOLS},  # with its checkpoints
    "toybox": {TOOLS, "subjects"},  # weights, world, judges and cast; its recipes have a row of their own
    "toybox.recipes": {TOOLS, "toybox", "autoencoders", "diffusion", "training"},
    "diffusion": {TOOLS, "networks", "autoencoders", "toybox"},  # the weights of "toybox"
    "personalize": {*_LOW, "diffusion"},
    "purify": {*_LOW, "diffusion"},
    "protect": {*_LOW, "diffusion", "purify", "measure"},  # which it trains against, and checks itself by
    "page": {TOOLS, "protect"},
    "immunize": {*_LOW, "diffusion", "personalize"},
    "measure": {*_LOW, "diffusion"},
    "verify": _ALL,
    "bench": _ALL,
    "serve": {*_ALL, "page"},
    "demo": _ALL,
    "publishing": _ALL,
    "cli": {*_ALL, "page", "serve", "demo", "publishing", "toybox.recipes"},
}
"""For each folder or file of the layout, what it may import. Everything may import itself, and the names that
the package itself offers."""

_FILES = {"checkpoints": "training"}
"""Files beside the folders that belong to a row of another name."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("unlikeness.protect.learning", "unlikeness.personalize.*"): "a DreamBooth learns while it protects",
    ("unlikeness.purify.folder", "unlikeness.protect.files.*"): "one file layer for both commands",
}
"""(source, target) as patterns, and the reason."""


@dataclass(frozen=True)
class Import:
    """`source` imports `target`, both names of modules. kind: "import time", "local" or "types"."""

    source: str
    target: str
    kind: str


def _unit(module: str) -> str:
    """The row of `ALLOWED` that a module belongs to."""
    parts = module.split(".")[1:]
    if parts[:1] and parts[0] in _FILES:
        return _FILES[parts[0]]
    two = ".".join(parts[:2])
    if two in ALLOWED:
        return two
    if parts and parts[0] in ALLOWED:
        return parts[0]
    assert len(parts) < 2, f"{module}: the folder has no row in ALLOWED"
    return TOOLS


@cache
def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _is_typing(test: ast.expr) -> bool:
    return isinstance(test, ast.Name | ast.Attribute) and ast.unparse(test).endswith("TYPE_CHECKING")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(module: str, path: Path) -> Iterator[Import]:
    waiting: list[tuple[ast.AST, str]] = [(_tree(path), "import time")]
    while waiting:
        node, kind = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, kind) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                raise AssertionError(f"{path}: an import relative to the file; name the whole module")
            for alias in node.names:
                inner = f"{home}.{alias.name}"
                yield Import(module, inner if inner in _modules() else home, kind)
        elif isinstance(node, ast.If) and _is_typing(node.test):
            waiting.extend((child, "types") for child in node.body)
            waiting.extend((child, kind) for child in node.orelse)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            waiting.extend((child, "local" if inside else kind) for child in ast.iter_child_nodes(node))


@cache
def _all_imports() -> list[Import]:
    return [one for module, path in _modules().items() for one in _imports(module, path)]


def _own() -> Iterator[Import]:
    return (one for one in _all_imports() if one.target.split(".")[0] == PACKAGE and one.target in _modules())


def test_no_import_points_up_the_layout() -> None:
    upward = [
        one
        for one in _own()
        if one.target != PACKAGE
        and one.source not in (PACKAGE, f"{PACKAGE}.__main__")
        and _unit(one.source) != _unit(one.target)
        and _unit(one.target) not in ALLOWED[_unit(one.source)]
    ]
    unused = set(EXCEPTIONS)
    wrong = set()
    for one in upward:
        known = {(a, b) for a, b in EXCEPTIONS if fnmatch(one.source, a) and fnmatch(one.target, b)}
        unused -= known
        if not known:
            wrong.add(f"{_modules()[one.source]} imports {one.target} ({one.kind})")
    assert not wrong, "\n".join(sorted(wrong))
    assert not unused, f"exceptions that are no longer needed: {unused}"


def test_every_import_is_of_a_file() -> None:
    """A type checker may find a file that has gone in an installed package of before."""
    gone = [
        f"{_modules()[one.source]} imports {one.target}"
        for one in _all_imports()
        if one.target.split(".")[0] == PACKAGE and one.target not in _modules()
    ]
    assert not gone, "\n".join(gone)


def test_no_circle_at_import_time() -> None:
    edges: dict[str, set[str]] = {module: set() for module in _modules()}
    for one in _own():
        if one.kind == "import time" and one.source != one.target:
            edges[one.source].add(one.target)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_a_method_imports_no_sister_method() -> None:
    """Methods are what registries name as "package.module:Class" in one folder."""
    homes: dict[str, set[str]] = {}
    for module, path in _modules().items():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.fullmatch(r"(unlikeness(?:\.\w+)+):[A-Z]\w*", node.value)
                if found and "settings" not in found[1]:
                    homes.setdefault(module, set()).add(found[1])
    assert sum(map(len, homes.values())) > 10
    wrong = [
        f"{one.source} imports its sister {one.target}"
        for one in _own()
        for methods in homes.values()
        if one.source in methods and one.target in methods and one.source != one.target
    ]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_the_product_knows_no_research() -> None:
    wrong = [
        f"{one.source} imports {one.target}"
        for one in _all_imports()
        if one.target.split(".")[0] in ("experiments", "benchmarks", "tests")
    ]
    assert not wrong, "\n".join(wrong)
