"""The names that a suite may use, and what they stand for: looked up in the registries of their commands.

A method of another package is found like our own, so that nothing here knows a method by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from unlikeness import immunize, personalize, purify
from unlikeness.errors import UsageError
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.plugins import Methods
from unlikeness.presets import ATTACKS, preset_values
from unlikeness.protect.registry import METHODS as PROTECTIONS
from unlikeness.purify.chain import Step, parse
from unlikeness.settings import build
from unlikeness.verify.attackers import FURTHER, GRAY_BOX, Attacker
from unlikeness.verify.attackers import attackers as usual
from unlikeness.verify.settings import VerifySettings
from unlikeness.words import closest

if TYPE_CHECKING:
    from unlikeness.bench.suites import Grid, Suite

__all__ = [
    "Defence", "attacker", "attacker_names", "attackers_of", "base", "chain", "check", "defences_of",
    "overrides", "purifiers_of", "values_of",
]  # fmt: skip

NONE = "none"


@dataclass(frozen=True)
class Defence:
    """A row's defence: none, a protection of pictures with its budget, or an immunization. `values_of` has
    its settings."""

    name: str
    kind: Literal["none", "pictures", "model"] = "none"
    method: str = ""
    budget: float | None = None

    @property
    def title(self) -> str:
        """ "advdm, 8/255"."""
        return self.name if self.budget is None else f"{self.name}, {self.budget:g}/255"


def defences_of(suite: Suite, grid: Grid) -> list[Defence]:
    """The defences of a grid, each once. UsageError for an unknown name."""
    pictures = _names(PROTECTIONS, suite.protect)
    models = _names(immunize.METHODS, suite.immunize)
    found: list[Defence] = []
    for name in grid.defences:
        if name == NONE:
            found.append(Defence(NONE))
            continue
        for one in {"all-pictures": pictures, "all-models": models}.get(name, [name]):
            if one in pictures and name != "all-models":
                method = str(suite.protect.get(one, {}).get("method", one))
                found += [Defence(one, "pictures", method, budget) for budget in grid.budgets]
            elif one in models:
                found.append(
                    Defence(one, "model", str(suite.immunize.get(one, {}).get("method", one)))
                )
            else:
                known = (NONE, "all-pictures", "all-models", *pictures, *models)
                raise UsageError(f"{one} is no defence{closest(one, known)}; valid are: {', '.join(known)}")
    return list(dict.fromkeys(found))


def values_of(suite: Suite, defence: Defence) -> dict[str, Any]:
    """All settings that the suite and the preset give a defence."""
    given = suite.protect if defence.kind == "pictures" else suite.immunize
    own = {key: value for key, value in given.get(defence.name, {}).items() if key != "method"}
    if defence.kind == "pictures":
        return {**own, "budget": defence.budget}
    return {**preset_values("immunize", suite.plan.preset_name, 0, defence.method), **own}


def _verifying() -> tuple[Attacker, ...]:
    return (*usual(), *FURTHER)


@cache
def attacker_names(suite: Suite) -> tuple[str, ...]:
    """All attackers: those of `verify`, the presets of other trainers, the methods of `personalize`, and the
    suite's own."""
    names = [*(one.name for one in _verifying()), *(one.name for one in ATTACKS), *personalize.names()]
    own = [name for name, one in suite.personalize.items() if "method" in one]
    return tuple(dict.fromkeys([*names, *own]))


def attackers_of(suite: Suite, grid: Grid) -> list[str]:
    """The attackers of a grid by name. UsageError for an unknown name, and for one that needs pools."""
    known = attacker_names(suite)
    found: list[str] = []
    for name in grid.attackers:
        if name == GRAY_BOX.name:
            raise UsageError(f"{name} needs the pools of one protection; run it with `unlikeness verify`")
        if name != "all" and name not in known:
            raise UsageError(f"{name} is no attacker{closest(name, known)}; valid are: {', '.join(known)}")
        found += _possible(suite, known) if name == "all" else [name]
    return list(dict.fromkeys(found))


def _possible(suite: Suite, names: Sequence[str]) -> list[str]:
    """Those that have what they need: only toybox subjects have further pictures."""
    return [one for one in names if suite.plan.toybox or not attacker(suite, one).needs_unseen]


@cache
def attacker(suite: Suite, name: str) -> Attacker:
    """The attacker of this name. Settings in `attack` come before those of a preset."""
    for one in _verifying():
        if one.name == name:
            return one
    given = suite.personalize.get(name, {})
    preset = next((one for one in ATTACKS if one.name == name), None)
    if preset is not None:
        method, what = preset.method, preset.what
        values = preset_values("personalize", name, suite.plan.resolution, method)
    else:
        method = str(given.get("method", name))
        values = preset_values("personalize", suite.plan.preset_name, 0, method)
        what = f"{method} of `unlikeness personalize`"
    common = {key: value for key, value in suite.attack.items() if key in _COMMON}
    return Attacker(name, what, method=method, further={**values, **common})


_COMMON = frozenset(PersonalizeSettings.__dataclass_fields__)


@cache
def base(suite: Suite, seed: int) -> VerifySettings:
    """Common settings of the attackers, and of the judging."""
    preset = preset_values("verify", suite.plan.preset_name, 0)
    return build(VerifySettings, {**preset, **suite.attack, "seed": seed})


def overrides(suite: Suite, name: str, steps: int | None) -> dict[str, dict[str, object]]:
    """What the suite changes for this attacker alone."""
    own = {key: value for key, value in suite.personalize.get(name, {}).items() if key != "method"}
    return {name: {**own, **({} if steps is None else {"steps": steps})}}


def purifiers_of(grid: Grid) -> list[str]:
    """The purifiers of a grid, as `purify --method` takes them. `all` leaves out those that need a file."""
    found: list[str] = []
    for text in grid.purifiers:
        found += filter(_complete, purify.names()) if text == "all" else [text]
    return list(dict.fromkeys(found))


def _complete(name: str) -> bool:
    """Whether a purification computes with its defaults: they name what it needs, or a model serves."""
    settings = build(purify.METHODS.settings_type(name), {})
    return getattr(settings, settings.main or "", None) != "" or Step(name, settings).needs_model


@cache
def chain(suite: Suite, text: str) -> tuple[Step, ...]:
    """The purifications of "jpeg:75,resize:0.5"; () for none. UsageError for an unknown one."""
    if text == NONE:
        return ()
    names = [part.strip().partition(":")[0] for part in text.split(",")]
    given = {f"{name}.{key}": value for name in names for key, value in suite.purify.get(name, {}).items()}
    return tuple(parse(text, given))


def check(suite: Suite) -> None:
    """UsageError for a name or a setting anywhere in the suite that does not exist, or a wrong value."""
    _check_singles(suite.protect, PROTECTIONS, {})
    _check_singles(suite.immunize, immunize.METHODS, {})
    _check_singles(suite.purify, purify.METHODS, {})
    for name, values in suite.personalize.items():
        if name not in attacker_names(suite):
            known = attacker_names(suite)
            raise UsageError(
                f"{name} is no attacker{closest(name, known)}; give its method too, or one of "
                f"{', '.join(known)}"
            )
        method = str(values.get("method", attacker(suite, name).method))
        build(personalize.settings_type(method), overrides(suite, name, None)[name])
    for grid in suite.grids:
        for defence in defences_of(suite, grid):
            if defence.kind != "none":
                methods: Methods[Any, Any] = (
                    PROTECTIONS if defence.kind == "pictures" else immunize.METHODS
                )
                build(methods.settings_type(defence.method), values_of(suite, defence))
        for name in attackers_of(suite, grid):
            one = attacker(suite, name)
            for steps in grid.steps or (None,):
                values = {**one.further, **overrides(suite, name, steps)[name]}
                build(personalize.settings_type(one.method), values)
        for text in purifiers_of(grid):
            chain(suite, text)


def _check_singles(
    given: Mapping[str, Mapping[str, Any]], methods: Methods[Any, Any], further: Mapping[str, Any]
) -> None:
    for name, values in given.items():
        kind = methods.settings_type(str(values.get("method", name)))
        build(kind, {**{key: value for key, value in values.items() if key != "method"}, **further})


def _names(methods: Methods[Any, Any], own: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [*methods.names(), *(name for name in own if name not in methods.names())]
