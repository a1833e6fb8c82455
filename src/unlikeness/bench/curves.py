"""s against steps and against the budget, as lines of an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlikeness.bench.entries import NONE
from unlikeness.bench.rows import Row

__all__ = ["Chart", "charts"]

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 12, 10, 34
_MOST = 7
"""Lines in a chart at most; the highest ones are shown."""


@dataclass(frozen=True)
class Line:
    """points: "x,y x,y ..." in the picture; dots: the same one by one, with a text. kind: 0, 1, ... of its
    colour and dashes."""

    name: str
    kind: int
    points: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Chart:
    """One picture. ticks: (place, text) of each axis."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    bottom: int = _HEIGHT - _BOTTOM
    top: int = _TOP


def charts(rows: Sequence[Row]) -> list[Chart]:
    """For each attacker without a purifier: s against steps, and against the budget, where there are several
    points of a line."""
    plain = [one for one in rows if one.cell.purifier == NONE]
    found = []
    for attacker in dict.fromkeys(one.cell.attacker for one in plain):
        own = [one for one in plain if one.cell.attacker == attacker]
        steps: dict[str, dict[float, float]] = {}
        budgets: dict[str, dict[float, float]] = {}
        for one in own:
            if one.steps is not None:
                steps.setdefault(one.cell.defence.title, {})[one.steps] = one.worst.value
            if one.cell.steps is None and one.cell.defence.budget is not None:
                budgets.setdefault(one.cell.defence.name, {})[one.cell.defence.budget] = one.worst.value
        bare = [one.worst.value for one in own if one.cell.defence.kind == "none" and one.cell.steps is None]
        long = _long(budgets)
        if long and bare:
            ends = [x for line in long.values() for x in line]
            long = {"none": {min(ends): bare[0], max(ends): bare[0]}, **long}
        found += _chart(f"{attacker}: s against the attacker's steps", "steps", _long(steps), log=True)
        found += _chart(f"{attacker}: s against the budget", "budget [n/255]", long, log=False)
    return found


def _long(lines: Mapping[str, Mapping[float, float]]) -> dict[str, Mapping[float, float]]:
    return {name: line for name, line in lines.items() if len(line) > 1}


def _chart(title: str, unit: str, lines: Mapping[str, Mapping[float, float]], *, log: bool) -> list[Chart]:
    if not lines:
        return []
    kept = dict(sorted(lines.items(), key=lambda one: -max(one[1].values()))[:_MOST])
    xs = sorted({x for line in kept.values() for x in line})
    low, high = xs[0], xs[-1]
    top = max(1.0, *(y for line in kept.values() for y in line.values()))
    bottom = min(0.0, *(y for line in kept.values() for y in line.values()))

    def place(x: float) -> float:
        share = math.log(x / low) / math.log(high / low) if log else (x - low) / (high - low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def level(y: float) -> float:
        return round(_TOP + (top - y) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM), 1)

    drawn = []
    for kind, (name, line) in enumerate(kept.items()):
        dots = [(place(x), level(y), f"{name}: {x:g} {unit}, s {y:.2f}") for x, y in sorted(line.items())]
        drawn.append(Line(name, kind, " ".join(f"{x},{y}" for x, y, _ in dots), tuple(dots)))
    shown = xs if len(xs) <= 6 else [xs[round(i * (len(xs) - 1) / 5)] for i in range(6)]
    return [
        Chart(
            title, unit, tuple(drawn), tuple((place(x), f"{x:g}") for x in shown),
            tuple((level(y), f"{y:g}") for y in (0, 0.5, 1)),
        )
    ]  # fmt: skip
