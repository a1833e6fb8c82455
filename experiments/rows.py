"""The rows of `experiments/configs/*.yaml`: each is a method and its settings, under a name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unlikeness.errors import UsageError

CONFIGS = Path(__file__).parent / "configs"
Row = tuple[str, dict[str, Any]]

_FILES = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted(CONFIGS.glob("*.yaml"))}
_ROWS: dict[str, dict[str, Any]] = {k: v for one in _FILES.values() for k, v in one.get("rows", {}).items()}
_BASES: dict[str, dict[str, Any]] = {k: v for one in _FILES.values() for k, v in one.get("bases", {}).items()}


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Its own settings over those of every name in `like`."""
    like = entry.get("like", [])
    found: dict[str, Any] = {}
    for name in [like] if isinstance(like, str) else like:
        found |= _settings(_ROWS[name] if name in _ROWS else _BASES[name])
    return found | {name: value for name, value in entry.items() if name not in {"method", "like"}}


def _of(*files: str) -> dict[str, Row]:
    return {k: (v["method"], _settings(v)) for file in files for k, v in _FILES[file]["rows"].items()}


SCALE: dict[str, Any] = _FILES["common"]["scale"]
"""Settings of the toybox, below those of every row."""
ROWS = _of("apdm", "divert", "comparisons", "persguard", "outputs")
"""The rows of the tables."""
TRIED = _of("search")
"""The rows that `experiments.apdm_search` tries, beside those of the tables."""
SEARCHES: dict[str, dict[str, Any]] = _FILES["search"]["searches"]
MAIN = ("none", "apdm", "divert", "adversarial", "imma")
"""The rows that are measured unless others are given."""


_FORMER = {
    "attack_stride": "stride", "attack_depth": "depth", "attack_from_start": "from_start",
    "attack_identifiers": "identifiers", "attack_prompts": "templates", "attack_rates": "rates",
    "attack_low_rank": "low_rank", "attack_ranks": "ranks", "attack_low_rank_rate": "low_rank_rate",
    "attack_text_encoder": "text_encoder", "unprotected_every": "bystanders",
    "unprotected_from": "bystanders_from", "unprotected_placed": "bystanders_placed",
    "protective_output": "behaviour", "pattern_weight": "mark_weight",
}  # fmt: skip


def in_former_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the names and texts that they had when the first models were made. The folders of models
    are named for them, so that these models are found."""
    found = {}
    for name, value in settings.items():
        if isinstance(value, list) and name in _FORMER:
            value = ("|" if name == "attack_prompts" else ",").join(f"{one}" for one in value)
        found[_FORMER.get(name, name)] = value
    return found


def config(name: str) -> dict[str, Any]:
    """What experiments/configs/NAME.yaml says."""
    found: dict[str, Any] = _FILES[name]
    return found


def settings_of(row: str) -> Row:
    """Method and settings of a row; ("", {}) for "none". "apdm@400" is a row with another number of outer
    steps. UsageError for an unknown one."""
    name, at, steps = row.partition("@")
    method, settings = {"none": ("", {}), **ROWS, **TRIED}.get(name, (None, {}))
    if method is None or (at and not steps.isdecimal()):
        raise UsageError(f"{row} is no row; there are {', '.join((*ROWS, *TRIED))}, also as ROW@STEPS")
    return method, {**settings, "outer_steps": int(steps)} if at else dict(settings)


def rows_of(text: str, *, original: bool = True) -> list[str]:
    """The rows of a flag, separated by commas; with `original` also "none". UsageError for an unknown one."""
    known = [*(["none"] if original else []), *ROWS]
    for row in text.split(","):
        if row not in known:
            raise UsageError(f"--rows {row} is no row; there are {', '.join(known)}")
    return text.split(",")
