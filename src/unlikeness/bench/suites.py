"""A suite: what is crossed with what, and with which settings. Read from YAML, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlikeness.errors import UsageError
from unlikeness.foreign import read_lines
from unlikeness.presets import PRESETS
from unlikeness.settings import Checked, build, given_in, setting
from unlikeness.verify.settings import VerifySettings
from unlikeness.words import closest

__all__ = ["OWN", "Grid", "Plan", "Suite", "load", "parse", "shipped"]

OWN = Path(__file__).with_name("suites")
"""The folder of the suites that are shipped."""

KINDS = ("protect", "immunize", "personalize", "purify")
"""Settings of single methods and attackers, under the command that knows them."""


@dataclass(frozen=True, kw_only=True)
class Plan(Checked):
    """What all cells of a suite have in common."""

    about: str = setting("", "One sentence for `bench list`.")
    model: str = setting("toybox", "Model under attack: toybox, a diffusers folder, a file or a hub name.")
    preset: str = setting(
        "auto", "Preset of all settings; auto: toybox for the toybox, else stable-diffusion.",
        choices=("auto", *PRESETS),
    )  # fmt: skip
    subjects: int = setting(
        1, "Unseen subjects of the toybox, or so many of the folder.", unit="subjects", at_least=1
    )
    folder: str = setting(
        "", "Folder NOUN/NAME/pictures of the subjects; empty: the toybox's. Of each subject the first "
        "pictures by name are learnt, the others are compared with.",
    )  # fmt: skip
    pictures: int = setting(
        5, "Pictures of a subject that the attacker has.", unit="pictures", source="APDM: 4 to 6", at_least=1
    )
    seeds: tuple[int, ...] = setting((0,), "Seeds; each repeats every cell.", at_least=0)
    encoders: tuple[str, ...] = setting(
        ("toybox",), "Encoders that judge, as in `unlikeness verify`; the first gives s."
    )
    contexts: tuple[str, ...] = setting(
        ("in the snow", "on the beach"), "Words after the prompt, for new contexts."
    )
    prompts: tuple[str, ...] = setting(
        (), "What an immunized model must still draw as before; none: a photo of each class noun."
    )
    cell_seconds: float = setting(
        0.0, "Seconds of a cell, for the estimate, until cells are measured.", at_least=0.0
    )
    model_seconds: float = setting(
        0.0, "Seconds of an immunization, for the estimate, until one is measured.", at_least=0.0
    )

    @property
    def toybox(self) -> bool:
        """Whether the subjects are the toybox's."""
        return not self.folder and self.model == "toybox"

    @property
    def preset_name(self) -> str:
        """The preset that `auto` stands for."""
        if self.preset != "auto":
            return self.preset
        return "toybox" if self.model == "toybox" else "stable-diffusion"

    @property
    def resolution(self) -> int:
        """Of a model for which the preset is meant [px]; other trainers' presets are scaled by it."""
        return 64 if self.preset_name == "toybox" else 512


@dataclass(frozen=True, kw_only=True)
class Grid(Checked):
    """One crossing: every defence with every attacker, and so on."""

    defences: tuple[str, ...] = setting(
        ("none",), "none, methods of protect and immunize, all-pictures, all-models."
    )
    budgets: tuple[float, ...] = setting(
        (8.0,), "Budgets of the protections of pictures.", unit="n/255", above=0.0, at_most=255.0
    )
    attackers: tuple[str, ...] = setting(("paper",), "Attackers by name, or all.")
    steps: tuple[int, ...] = setting((), "Steps of each attacker; none: its own.", unit="steps", at_least=1)
    purifiers: tuple[str, ...] = setting(
        ("none",), "none, all, or what `purify --method` takes (jpeg:75, resize:0.5,jpeg:75)."
    )


@dataclass(frozen=True, eq=False)
class Suite:
    """attack: settings of all attackers and of the judging (`VerifySettings`). The mappings hold settings by
    method or attacker; `method` in one makes its name a row of its own. texts: all of it, JSON-able."""

    name: str
    plan: Plan
    grids: tuple[Grid, ...]
    attack: Mapping[str, Any] = field(default_factory=dict)
    protect: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    immunize: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    personalize: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    purify: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    texts: Mapping[str, Any] = field(default_factory=dict)


def shipped() -> list[str]:
    """Names of the suites of the package."""
    return sorted(path.stem for path in OWN.glob("*.yaml"))


def load(
    name: str, changes: Mapping[str, Any] | None = None, attack: Mapping[str, Any] | None = None
) -> Suite:
    """A shipped suite by its name, or a YAML file.

    Args:
        changes: values of `Plan` that replace the file's. attack: of attackers, as in `given`.

    Raises:
        UsageError: no such suite, an unknown name or setting, or a wrong value.
        UnlikenessError: the file cannot be read.
    """
    path = OWN / f"{name}.yaml" if name in shipped() else Path(name)
    if not path.is_file():
        known = shipped()
        raise UsageError(
            f"{name} is no suite and no file{closest(name, known)}; give a YAML file, or one of "
            f"{', '.join(known)}"
        )
    content = {**read_lines(path, "the suite"), **(changes or {})}
    for key, value in (attack or {}).items():
        whose, dot, which = key.rpartition(".")
        place = content.setdefault("personalize", {}).setdefault(whose, {}) if dot else (
            content.setdefault("attack", {})
        )  # fmt: skip
        place[which if dot else key] = value
    return parse(path.stem, content, str(path))


def parse(name: str, content: Mapping[str, Any], place: str = "the suite") -> Suite:
    """A suite from its values. UsageError, which begins with `place`, for what is unknown or wrong."""
    from unlikeness.bench.entries import check

    try:
        suite = _parsed(name, content, place)
        check(suite)
    except UsageError as error:
        said = str(error)
        raise UsageError(said if said.startswith(place) else f"{place}: {said}") from error
    return suite


def _parsed(name: str, content: Mapping[str, Any], place: str) -> Suite:
    parts = ("attack", "grids", *KINDS)
    for key in content:
        if key not in (*parts, *Plan.__dataclass_fields__):
            near = closest(key, (*parts, *Plan.__dataclass_fields__))
            raise UsageError(f"{key} is nothing that a suite has{near}")
    for key in ("attack", *KINDS):
        if not isinstance(content.get(key, {}), dict):
            raise UsageError(f"{key} must be lines NAME: VALUE")
    grids = content.get("grids", [{}])
    if not isinstance(grids, list) or not all(isinstance(one, dict) for one in grids):
        raise UsageError("grids must be a list, each of lines NAME: VALUE")
    own = {key: value for key, value in content.items() if key not in parts}
    attack = dict(content.get("attack", {}))
    for one in [own, attack, *grids]:
        given_in(place, [str(key) for key in one])
    build(VerifySettings, attack)
    if "seed" in attack:
        raise UsageError("attack: seed is an axis of the suite; write seeds: [0, 1]")
    singles = {kind: _singles(kind, content.get(kind, {}), place) for kind in KINDS}
    crossed = tuple(build(Grid, _listed(one)) for one in grids)
    return Suite(name, build(Plan, own), crossed, attack, **singles, texts=dict(content))


def _listed(grid: Mapping[str, Any]) -> dict[str, Any]:
    """A grid whose single values are lists of one: `budgets: 8`."""
    return {key: value if isinstance(value, list) else [value] for key, value in grid.items()}


def _singles(kind: str, given: Mapping[str, Any], place: str) -> dict[str, dict[str, Any]]:
    found = {}
    for name, values in given.items():
        if not isinstance(values, dict):
            raise UsageError(f"{kind}: {name} must be followed by lines NAME: VALUE")
        given_in(place, [str(key) for key in values])
        found[str(name)] = {str(key): value for key, value in values.items()}
    return found
