"""From records of cells to rows: a mean over subjects and seeds, with its interval, beside its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from unlikeness.bench.cells import Cell
from unlikeness.bench.entries import NONE
from unlikeness.bench.running import CELLS, read_cell
from unlikeness.errors import UnlikenessError
from unlikeness.foreign import reason
from unlikeness.measure.similarity import SubjectSimilarity, mean_similarity, unpacked
from unlikeness.verify.verdict import REFUSED, WORKS

__all__ = ["Quality", "Row", "read", "rows"]

_RESAMPLES = 500


@dataclass(frozen=True)
class Quality:
    """A figure of spoiled output: mean over cells, and the same of the controls where there is one."""

    name: str
    by: str
    value: float
    clean: float | None


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        cell: without subject and seed. names: of the records, for their pictures.
        s: at the training prompt. new_contexts: there. unprotected: the larger s of the control.
        visible: L-infinity [n/255], PSNR [dB] and SSIM of a protection of pictures.
        seconds: mean over cells. steps: of the attacker.
    """

    cell: Cell
    names: tuple[str, ...]
    s: SubjectSimilarity
    new_contexts: SubjectSimilarity | None
    unprotected: float | None
    quality: tuple[Quality, ...]
    visible: Mapping[str, float]
    subjects: int
    seeds: int
    seconds: float
    steps: int | None

    @property
    def worst(self) -> SubjectSimilarity:
        """The larger of both s."""
        return max(self.s, self.new_contexts or self.s, key=lambda one: one.value)

    @property
    def attack(self) -> str:
        """ "lora-4, 800 steps after jpeg:75"."""
        steps = "" if self.cell.steps is None else f", {self.cell.steps} steps"
        washed = "" if self.cell.purifier == NONE else f" after {self.cell.purifier}"
        return f"{self.cell.attacker}{steps}{washed}"

    @property
    def outcome(self) -> str:
        """What the row shows, as in `verify`: a low s counts only where the attacker learns the control."""
        if self.worst.value >= WORKS:
            return "learnt"
        if self.unprotected is None or self.unprotected < WORKS:
            return "inconclusive"
        return "protected" if self.worst.high < REFUSED else "little"

    def figure(self, name: str) -> Quality | None:
        """The first figure of spoiled output with this name."""
        return next((one for one in self.quality if one.name == name), None)


def read(folder: Path) -> tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]:
    """(finished cells by file name, failed cells). Of several codes' records of a cell the newest counts.

    UnlikenessError for a folder without cells, and for a record that is damaged.
    """
    files = sorted((folder / CELLS).glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise UnlikenessError(f"{folder} holds no cells; give the --output of `unlikeness bench run`")
    newest: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in files:
        record = read_cell(path)
        if record is None:
            raise UnlikenessError(f"{path} is no record of a cell; remove it")
        newest[path.stem.rpartition("-")[0]] = path.stem, record
    done = [one for one in newest.values() if one[1].get("status") == "done"]
    return done, [one for _, one in newest.values() if one.get("status") != "done"]


def rows(found: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Row]:
    """The rows, the highest s first. UnlikenessError for a record of another form."""
    try:
        return _rows([(name, Cell.of(one["cell"]), one) for name, one in found])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnlikenessError(
            f"a record of a cell has another form ({reason(error)}); run the suite again into a new folder"
        ) from error


def _rows(found: Sequence[tuple[str, Cell, Mapping[str, Any]]]) -> list[Row]:
    by_cell = {cell: one for _, cell, one in found}
    groups: dict[Cell, list[tuple[str, Cell, Mapping[str, Any]]]] = {}
    for entry in found:
        groups.setdefault(entry[1].row, []).append(entry)
    made = []
    for row, entries in groups.items():
        figures = [one["figures"] for _, _, one in entries]
        controls = [by_cell[cell.control] for _, cell, _ in entries if cell.control in by_cell]
        there = [one["pairs_new_contexts"] for one in figures]
        made.append(
            Row(
                cell=row, names=tuple(name for name, _, _ in entries),
                s=_mean([one["pairs"] for one in figures]),
                new_contexts=_mean(there) if all(there) else None,
                unprotected=mean(one["figures"]["s_worst"] for one in controls) if controls else None,
                quality=tuple(_quality(figures)), visible=_visible(figures),
                subjects=len({cell.subject for _, cell, _ in entries}),
                seeds=len({cell.seed for _, cell, _ in entries}),
                seconds=mean(float(one["seconds"]) for _, _, one in entries),
                steps=entries[0][2]["attacker"]["steps"],
            )
        )  # fmt: skip
    return sorted(made, key=lambda one: -one.worst.value)


def _mean(texts: Sequence[Mapping[str, Any]]) -> SubjectSimilarity:
    return mean_similarity([unpacked(one) for one in texts], seed=0, resamples=_RESAMPLES)


def _quality(figures: Sequence[Mapping[str, Any]]) -> list[Quality]:
    values: dict[tuple[str, str], list[tuple[float, float | None]]] = {}
    for one in figures:
        for figure in one["spoiled"]:
            values.setdefault((figure["name"], figure["by"]), []).append((figure["value"], figure["clean"]))
        for name, figure in one["metrics"].items():
            values.setdefault((name, "metric"), []).append((figure["value"], figure["clean"]))
    found = []
    for (name, by), pairs in values.items():
        known = [value for value, _ in pairs if value is not None]
        clean = [value for _, value in pairs if value is not None]
        if known:
            found.append(Quality(name, by, mean(known), mean(clean) if clean else None))
    return found


def _visible(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    seen = [one["visible"] for one in figures if one.get("visible")]
    found = {}
    for name in ("linf", "psnr", "ssim") if seen else ():
        known = [one[name] for one in seen if one[name] is not None]
        if known:
            found[name] = max(known) if name == "linf" else mean(known)
    return found
