"""One cell: attack, draw, judge, and write what was found. Both questions: is it the subject, and is it
spoiled?"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.bench.cells import Cell, code_of, identity, name_of
from unlikeness.bench.work import Shared
from unlikeness.errors import UnlikenessError
from unlikeness.files import replacing, write_text
from unlikeness.gallery import grid, to_pil
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.measure.metrics import METRICS, Drawn
from unlikeness.measure.similarity import SubjectSimilarity, packed
from unlikeness.measure.spoiled import spoiled_output
from unlikeness.measure.visibility import linf, psnr, ssim
from unlikeness.provenance import versions
from unlikeness.seeds import derive
from unlikeness.verify.verdict import Outcome

__all__ = ["CELLS", "PICTURES", "failed", "measure"]

CELLS, PICTURES = "cells", "pictures"
"""Folders of the records, and of a strip of pictures for each cell."""

_SHOWN = 5
_LARGEST = 256
"""Side of a picture in a strip at most [px]."""


def measure(cell: Cell, shared: Shared) -> None:
    """Compute a cell, and write its strip of pictures and its record."""
    began = time.perf_counter()
    known = identity(cell, shared.suite, shared)
    code = code_of(cell, shared.suite)
    name = name_of(cell, known, code)
    scratch = shared.work / "attacks" / name
    outcome = shared.outcome(cell, scratch)
    control = None if cell.control is None else shared.outcome(cell.control, scratch)
    figures = _figures(cell, shared, outcome, control)
    _strip(cell, shared, outcome, shared.output / PICTURES / f"{name}.png")
    record = {
        "cell": cell.as_record(), "subject": shared.title(cell.subject), "status": "done",
        "identity": known, "code": code, "figures": figures,
        "attacker": {"method": outcome.attacker.method, "what": outcome.attacker.what,
                     "steps": outcome.settings.get("steps"), "prompt": outcome.prompt,
                     "losses": list(outcome.losses)},
        "seconds": round(time.perf_counter() - began, 1), "versions": versions(),
        "device": str(shared.attacked.device), "threads": torch.get_num_threads(),
    }  # fmt: skip
    _write(shared.output / CELLS / f"{name}.json", record)
    shutil.rmtree(scratch, ignore_errors=True)


def failed(cell: Cell, shared: Shared, sentence: str) -> None:
    """Write the record of a cell that could not be computed. The next run computes it again."""
    known, code = identity(cell, shared.suite, shared), code_of(cell, shared.suite)
    record = {
        "cell": cell.as_record(), "subject": shared.title(cell.subject), "status": "failed",
        "sentence": sentence, "identity": known, "code": code, "versions": versions(),
    }  # fmt: skip
    _write(shared.output / CELLS / f"{name_of(cell, known, code)}.json", record)


def _write(path: Path, record: dict[str, Any]) -> None:
    write_text(path, json.dumps(_finite(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """The value with None for numbers that are infinite or no numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _figures(cell: Cell, shared: Shared, outcome: Outcome, control: Outcome | None) -> dict[str, Any]:
    who, elsewhere = shared.who(cell.subject), outcome.generated.elsewhere
    found: dict[str, Any] = {
        "s": _interval(outcome.s),
        "s_new_contexts": None if outcome.elsewhere is None else _interval(outcome.elsewhere),
        "s_worst": outcome.worst.value,
        "s_by": {name: _interval(one.worst) for name, one in outcome.further.items()},
        "pairs": packed(outcome.pairs),
        "pairs_new_contexts": None if elsewhere is None else packed(
            shared.evaluator(cell).pairs(elsewhere / 255)
        ),
        "pictures": len(outcome.generated.plain),
    }
    if cell.defence.kind == "pictures":
        found["visible"] = _visible(who.subject.images, shared.published(cell))
    found["spoiled"], found["left_out"] = _spoiled(cell, shared, outcome, control)
    found["metrics"] = _metrics(cell, shared, outcome, control)
    return found


def _interval(s: SubjectSimilarity) -> dict[str, float]:
    return {"value": s.value, "low": s.low, "high": s.high}


def _visible(clean: Tensor, changed: Tensor) -> dict[str, float | None]:
    levels = psnr(clean, changed)
    levels = levels[levels.isfinite()]
    return {
        "linf": float(linf(clean, changed).max()),
        "psnr": float(levels.mean()) if len(levels) else None,
        "ssim": float(ssim(clean, changed).mean()),
    }


def _spoiled(
    cell: Cell, shared: Shared, outcome: Outcome, control: Outcome | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The figures of `unlikeness measure spoiled`, beside those of the unprotected control."""
    who, plain = shared.who(cell.subject), outcome.generated.plain
    clean = None if control is None else control.generated.plain
    if clean is not None and (plain.flatten(1) == clean.flatten(1)).all(1).any():
        clean = None  # the same image: it would be compared with itself
    with tempfile.TemporaryDirectory(prefix="unlikeness-") as place:
        folder = Path(place)
        drawn, subject = folder / "drawn", folder / "subject"
        _save(drawn, plain / 255)
        _save(subject, who.held_out)
        if clean is not None:
            _save(folder / "clean", clean / 255)
        found = spoiled_output(
            drawn, names=shared.suite.plan.encoders, clean=None if clean is None else folder / "clean",
            subject=subject, class_noun=who.subject.class_noun, prompt=outcome.prompt, seed=cell.seed,
            device=str(shared.attacked.device), report=lambda _: None,
        )  # fmt: skip
    return [asdict(one) for one in found.figures], found.left_out


def _save(folder: Path, images: Tensor) -> None:
    folder.mkdir()
    for i, image in enumerate(images):
        to_pil(image).save(folder / f"{i:04d}.png", compress_level=1)


def _metrics(
    cell: Cell, shared: Shared, outcome: Outcome, control: Outcome | None
) -> dict[str, dict[str, Any]]:
    """The metrics of other packages."""
    who, found = shared.who(cell.subject), {}

    def drawn(of: Outcome) -> Drawn:
        return Drawn(of.generated.plain / 255, who.held_out, who.subject.class_noun, of.prompt)

    for name in METRICS.names():
        metric = METRICS.create(name)
        values = _checked(name, metric.measure(drawn(outcome)), len(outcome.generated.plain))
        interval = bootstrap_mean([values], seed=derive(cell.seed, name))
        beside = None if control is None else _checked(
            name, metric.measure(drawn(control)), len(control.generated.plain)
        )  # fmt: skip
        found[name] = {
            "value": interval.value, "low": interval.low, "high": interval.high,
            "clean": None if beside is None else sum(beside) / len(beside),
        }  # fmt: skip
    return found


def _checked(name: str, values: Tensor, count: int) -> Sequence[float]:
    if tuple(values.shape) != (count,) or not bool(values.isfinite().all()):
        raise UnlikenessError(f"metric {name} must give one finite number a picture; update its package")
    return [float(value) for value in values]


def _strip(cell: Cell, shared: Shared, outcome: Outcome, path: Path) -> None:
    """Two lines: what the attacker trained on, and what its model draws."""
    side = min(shared.attacked.resolution, _LARGEST)
    rows = [shared.learnt(cell)[:_SHOWN], outcome.generated.plain[:_SHOWN] / 255]
    across = max(len(row) for row in rows)
    small = [F.interpolate(row, (side, side), mode="area") for row in rows]
    filled = [torch.cat([row, torch.ones(across - len(row), 3, side, side)]) for row in small]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        grid(torch.cat(filled), columns=across).save(part, "PNG")
