"""The cells of a suite, each named by what decides its figures."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import unlikeness
from unlikeness import immunize, personalize, purify
from unlikeness.bench.entries import (
    NONE,
    Defence,
    attacker,
    attackers_of,
    base,
    chain,
    defences_of,
    overrides,
    purifiers_of,
    values_of,
)
from unlikeness.bench.suites import Suite
from unlikeness.measure.metrics import METRICS
from unlikeness.plugins import Methods
from unlikeness.protect.registry import METHODS as PROTECTIONS
from unlikeness.protect.rid.settings import SHIPPED
from unlikeness.provenance import code_digest, file_digest
from unlikeness.settings import build

__all__ = ["Cell", "Facts", "code_of", "expand", "identity", "name_of", "part_key"]

ROOT = Path(unlikeness.__file__).parent
_LONGEST = 200
"""Characters of a setting that may be a path."""

_ATTACK = (
    "diffusion", "autoencoders/autoencoder.py", "training.py", "seeds.py", "subjects.py", "viewing.py",
    "personalize/data.py", "personalize/objective.py", "verify/attack.py", "verify/evaluator.py",
    "verify/outcomes.py", "verify/threat_model.py", "toybox/cast.py", "toybox/world", "measure/similarity.py",
    "measure/spoiled.py", "measure/naturalness.py", "measure/distribution.py", "bench/measuring.py",
    "bench/work.py",
)  # fmt: skip
_DEFENCE = {
    "none": (),
    "pictures": (
        "protect/base.py", "protect/surrogates.py", "protect/pixels.py", "protect/aims.py",
        "protect/trainers_view.py", "protect/together.py", "protect/learning.py", "protect/published.py",
        "measure/visibility.py",
    ),
    "model": (
        "immunize/run.py", "immunize/l2p.py", "immunize/attackers.py", "immunize/batch.py",
        "immunize/data.py", "immunize/losses.py", "immunize/preservation.py", "immunize/unprotected.py",
        "immunize/outputs.py", "immunize/subject_list.py",
    ),
}  # fmt: skip
"""Code that decides a cell, beside the modules of its methods. A part that is gone counts as changed code."""


class Facts(Protocol):
    """What is known of the parts of a suite: see `work.Shared`."""

    @property
    def model(self) -> str:
        """A digest of the attacked model, or its name."""

    @property
    def judges(self) -> list[str]:
        """The encoders, with digests."""

    def subject(self, index: int) -> str:
        """A digest of a subject's pictures."""


@dataclass(frozen=True)
class Cell:
    """One crossing. steps: None for the attacker's own. subject: its place among the suite's."""

    defence: Defence
    attacker: str
    purifier: str = NONE
    steps: int | None = None
    subject: int = 0
    seed: int = 0

    @property
    def control(self) -> Cell | None:
        """The same attacker where nothing protects; None if this is it."""
        bare = replace(self, defence=Defence(NONE), purifier=NONE)
        return None if bare == self else bare

    @property
    def row(self) -> Cell:
        """The cell without its subject and seed: what a row of the report is over."""
        return replace(self, subject=0, seed=0)

    def as_record(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(record: Mapping[str, Any]) -> Cell:
        """The cell that `as_record` wrote. KeyError or TypeError for another record."""
        return Cell(**{**record, "defence": Defence(**record["defence"])})


def expand(suite: Suite) -> list[Cell]:
    """All cells, each once, subject by subject; controls first, since the others are compared with them."""
    found: dict[Cell, None] = {}
    for seed in suite.plan.seeds:
        for subject in range(suite.plan.subjects):
            here = [replace(one, subject=subject, seed=seed) for one in _rows(suite)]
            found |= dict.fromkeys(one.control for one in here if one.control is not None)
            found |= dict.fromkeys(here)
    return list(found)


def _rows(suite: Suite) -> list[Cell]:
    return [
        Cell(defence, name, purifier, steps)
        for grid in suite.grids
        for defence in defences_of(suite, grid)
        for name in attackers_of(suite, grid)
        for purifier in purifiers_of(grid)
        for steps in grid.steps or (None,)
        if _differs(suite, defence, name, purifier)
    ]


def _differs(suite: Suite, defence: Defence, name: str, purifier: str) -> bool:
    """Whether the axes matter: an attacker with other pictures alone has no protected ones, and without
    protected pictures there is nothing to mix them with, or to purify for a model-level defence."""
    one = attacker(suite, name)
    if defence.kind == "pictures":
        return one.learns_from != "unseen"
    if defence.kind == "model":
        return purifier == NONE and (one.learns_from == "unseen" or not one.needs_unseen)
    return purifier == NONE or one.learns_from != "unseen"


def part_key(cell: Cell, suite: Suite, facts: Facts) -> dict[str, Any]:
    """Everything that decides protected pictures or an immunized model; what cells share it by."""
    return {
        **_recipe(cell.defence, suite), "model": facts.model, "subject": facts.subject(cell.subject),
        "seed": cell.seed,
    }  # fmt: skip


@cache
def _recipe(made: Defence, suite: Suite) -> dict[str, Any]:
    methods: Methods[Any, Any] = PROTECTIONS if made.kind == "pictures" else immunize.METHODS
    settings = asdict(build(methods.settings_type(made.method), values_of(suite, made)))
    return {
        "method": made.method, "settings": settings, "files": _files(settings),
        "code": _code(_DEFENCE[made.kind]), "method code": _module(methods, made.method),
        "prompts": list(suite.plan.prompts) if made.kind == "model" else [],
    }  # fmt: skip


def identity(cell: Cell, suite: Suite, facts: Facts) -> dict[str, Any]:
    """Everything but code that decides a cell's figures."""
    own = overrides(suite, cell.attacker, cell.steps)
    defence = {} if cell.defence.kind == "none" else part_key(cell, suite, facts)
    return {
        "defence": {k: v for k, v in defence.items() if "code" not in k},
        "attack": {**_attack(suite, cell.attacker, cell.seed), "own": own[cell.attacker]},
        "purifier": [[step.method, asdict(step.settings)] for step in chain(suite, cell.purifier)],
        "subject": facts.subject(cell.subject), "pictures": suite.plan.pictures,
        "seed": cell.seed, "model": facts.model, "judges": facts.judges,
        "contexts": list(suite.plan.contexts),
    }  # fmt: skip


@cache
def _attack(suite: Suite, name: str, seed: int) -> dict[str, Any]:
    return {"attacker": attacker(suite, name).as_record(), **asdict(base(suite, seed))}


def code_of(cell: Cell, suite: Suite) -> str:
    """Twelve digits of the digest of all code that decides a cell."""
    steps = tuple(step.method for step in chain(suite, cell.purifier))
    method, metrics = attacker(suite, cell.attacker).method, tuple(METRICS.names())
    return _code_of(cell.defence.kind, cell.defence.method, method, steps, metrics)


@cache
def _code_of(
    kind: str, defence: str, method: str, purifiers: tuple[str, ...], metrics: tuple[str, ...]
) -> str:
    parts = [_code((*_ATTACK, *_DEFENCE[kind]))]
    if kind != "none":
        methods: Methods[Any, Any] = PROTECTIONS if kind == "pictures" else immunize.METHODS
        parts.append(_module(methods, defence))
    parts.append(_module(personalize.METHODS, method))
    parts += [_module(purify.METHODS, name) for name in purifiers]
    parts += [_module(METRICS, name) for name in metrics]
    return _short(parts)[:12]


def name_of(cell: Cell, of: Mapping[str, Any], code: str) -> str:
    """A cell's name: words for people, a digest of what decides it, and its code."""
    steps = "" if cell.steps is None else f"{cell.steps}-steps"
    axes = (cell.defence.title, cell.attacker, steps, "" if cell.purifier == NONE else cell.purifier)
    words = re.sub(r"[^a-z0-9.]+", "-", "_".join(filter(None, axes)).lower()).strip("-")
    return f"{words[:60]}_{cell.subject}_{_short(of)[:12]}-{code}"


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _files(settings: Mapping[str, Any]) -> list[str]:
    """Digests of the files that settings name: a network's weights, shipped ones too, or a picture."""
    found = []
    for value in settings.values():
        if isinstance(value, str) and 0 < len(value) < _LONGEST:
            paths = (SHIPPED / f"{value}.safetensors", Path(value).expanduser())
            found += [file_digest(path) for path in paths if path.is_file()][:1]
    return found


@cache
def _code(names: tuple[str, ...]) -> str:
    return code_digest([path for path in (ROOT / name for name in names) if path.exists()], ROOT)


@cache
def _module(methods: Methods[Any, Any], name: str) -> str:
    """The digest of the module that holds a method."""
    module = sys.modules[methods.load(name).__module__]
    file = inspect.getsourcefile(module)
    return name if file is None else code_digest([Path(file)], Path(file).parent)
