"""What all benchmarks share: their flags, their results file, digests of weights, Markdown tables."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness import provenance
from unlikeness.errors import UnlikenessError, UsageError

if TYPE_CHECKING:
    import torch

    from unlikeness.diffusion import TextToImage

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
EXPERIMENTS = ROOT / "experiments" / "results"
RUNS = ROOT / "runs" / "benchmarks"
"""Checkpoints, and whatever a `--quick` run writes: never committed."""

Cell = dict[str, Any]


def parser(description: str) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--model", default="toybox", help="toybox, a diffusers folder or a hub name")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--seed", type=int, default=0, help="of subjects, pictures and noise")
    made.add_argument("--quick", action="store_true", help="a smoke run, whose figures mean nothing")
    made.add_argument("--results", type=Path, help="the JSON file, if not in the folder results/")
    made.add_argument("--fresh", action="store_true", help="forget the figures that the file holds")
    made.add_argument("--keep", action="store_true", help="keep figures of other code: it decides nothing")
    return made


def results_file(name: str, args: argparse.Namespace, folder: Path = RESULTS) -> Path:
    """The file of the figures, in `folder` unless --results names another; a smoke run writes into runs/."""
    given: Path | None = args.results
    return given or (RUNS / "quick" if args.quick else folder) / f"{name}.json"


def main(body: Callable[[Sequence[str] | None], None]) -> None:
    """Run a benchmark's `body`; a user's mistake is one line on stderr."""
    try:
        body(None)
    except UnlikenessError as error:
        print(f"{' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)


PRECISION = "precision"
KEEP = ", or --keep to add to it what this machine computes, marked as such"


class Results:
    """One benchmark's JSON file. A finished cell is kept, and not computed again.

    about: everything that determines the figures and is not in a cell's key (weights, seed, sizes). A file
    with another `about` is refused with a UsageError, unless `fresh`. code: from `code_digest`; cells made by
    other code are refused too, unless `keep`. The file lists all code that made cells of it. With `keep`, a
    machine with another precision may add cells, which say so."""

    def __init__(
        self,
        path: Path,
        benchmark: str,
        about: Mapping[str, Any],
        *,
        fresh: bool = False,
        code: str | None = None,
        keep: bool = False,
    ) -> None:
        self.path = path
        self.keep = keep
        self.marks: dict[str, Any] = {}
        about = json.loads(json.dumps(about))
        self.record: dict[str, Any] = {
            "benchmark": benchmark, "about": about, "id": uuid.uuid4().hex, "summary": {}, "cells": {},
        }  # fmt: skip
        if path.exists() and not fresh:
            found = load(path)
            if found.get("about") != about:
                old = found.get("about") or {}
                names = [key for key in {**about, **old} if about.get(key) != old.get(key)]
                if not keep or names != [PRECISION]:
                    raise UsageError(
                        f"{path} holds figures with another {', '.join(names)}; give --fresh to replace "
                        f"them, or another file with --results{KEEP if names == [PRECISION] else ''}"
                    )
                self.marks = {PRECISION: about[PRECISION]}
            self.record = found
        known: list[str] = self.record.setdefault("code", [])
        if code is not None and code not in known:
            if self.cells and not keep:
                raise UsageError(
                    f"{path} holds figures that other code has made; give --fresh to replace them, --keep if "
                    "what has changed does not decide them, or another file with --results"
                )
            known.append(code)

    @property
    def cells(self) -> dict[str, Cell]:
        cells: dict[str, Cell] = self.record["cells"]
        return cells

    @property
    def work(self) -> Path:
        """The folder for this file's checkpoints."""
        return RUNS / "work" / str(self.record["id"])

    def cell(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> Cell:
        """The figures under `key`, computed and saved unless they are there."""
        if key not in self.cells:
            began = time.perf_counter()
            figures = dict(compute()) | self.marks
            figures["seconds"] = round(time.perf_counter() - began, 1)
            self.cells[key] = figures
            self.save()
            print(f"{key}: {_brief(figures)}", flush=True)
        return self.cells[key]

    def finish(self, summary: Mapping[str, Any], *, device: torch.device | None = None) -> None:
        """Save the summary of the cells, with the machine and versions."""
        self.record["summary"] = dict(summary)
        self.record["environment"] = environment(device)
        self.save()

    def save(self) -> None:
        """Replace the file atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        text = json.dumps(self.record, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(self.path)


def load(path: Path) -> dict[str, Any]:
    """A results file. UnlikenessError if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnlikenessError(f"{path} is no results file ({error}); remove it") from error
    if not isinstance(found, dict) or "cells" not in found:
        raise UnlikenessError(f"{path} is no results file; remove it")
    return found


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Versions and the kind of machine, without its name."""
    import torch

    versions = {"python": platform.python_version()}
    for package in ("unlikeness", "torch", "diffusers", "transformers", "peft", "numpy", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    on = f"{os.cpu_count()} CPU cores, {platform.machine()}"
    if device is not None and device.type == "cuda":
        on = torch.cuda.get_device_name(device)
    return {"versions": versions, "device": on, "threads": torch.get_num_threads()}


def on_gpu(device: torch.device) -> dict[str, str]:
    """The GPU and torch version, for a cell that a GPU made; empty on a CPU."""
    import torch

    if device.type != "cuda":
        return {}
    # Its own __version__ names the CUDA that it was built for, too.
    return {"device": f"{torch.cuda.get_device_name(device)}, torch {torch.__version__.partition('+')[0]}"}


def comparable(cell: Mapping[str, Any]) -> bool:
    """Whether a cell was made on the file's usual machine, so that its seconds can be compared."""
    return "device" not in cell and PRECISION not in cell


def made_on(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for a table about cells that a GPU or a machine of another precision made; [] if there are
    none."""
    made: dict[str, list[str]] = {}
    for key, cell in cells.items():
        what = f"{'models' if key.endswith('/made') else 'attacks'} of `{key.split('/')[0]}`"
        if "device" in cell:
            made.setdefault(f"on a GPU ({cell['device']})", []).append(what)
        if PRECISION in cell and not key.endswith("/quality"):
            made.setdefault(f"in {cell[PRECISION]}, on a CPU without bfloat16", []).append(what)
    return [
        f"Made {where}: "
        + ", ".join(f"{one}: {every.count(one)}" for one in dict.fromkeys(every)) + "."
        for where, every in made.items()
    ]  # fmt: skip


def weights_digest(*modules: Any) -> str:
    """Twelve digits of the SHA-256 of all parameters and buffers: which weights the figures are about."""
    import torch

    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(name.encode() + flat.numpy().tobytes())
    return digest.hexdigest()[:12]


def model_digest(model: TextToImage) -> str:
    """Twelve digits of the SHA-256 of all weights and of everything else that determines a model's images.

    That is its configurations, such as the scale of the latents, and the default guidance.
    """
    from unlikeness.diffusion.fingerprint import configuration

    weights = weights_digest(*model.networks)
    return hashlib.sha256(f"{weights} {configuration(model)}".encode()).hexdigest()[:12]


def code_digest(*names: str) -> str:
    """Twelve digits of `provenance.code_digest`. names: files and folders, relative to the repository's
    root."""
    return provenance.code_digest([ROOT / name for name in names], ROOT)[:12]


def model_name(name: str) -> str:
    """A model's name for the record: for a local folder, its own name without the path."""
    return Path(name).resolve().name if Path(name).exists() else name


def settings_text(settings: Mapping[str, Any]) -> str:
    """ "steps=800,learning_rate=0.0003", in the order given: the key of a cell."""
    return ",".join(f"{name}={value}" for name, value in settings.items())


def parse_settings(text: str) -> dict[str, str]:
    """The settings in "steps=800,learning_rate=3e-4". UsageError for any other form."""
    values = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"\w+", name.strip()):
            raise UsageError(f"{pair!r} must be NAME=VALUE")
        values[name.strip()] = value.strip()
    return values


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first column to the left, figures to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = [head, rule, *[[_text(value) for value in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(figures: Mapping[str, Any], digits: int = 2) -> str:
    """ "0.61 [0.55, 0.67]" from value, low and high."""
    return f"{figures['value']:.{digits}f} [{figures['low']:.{digits}f}, {figures['high']:.{digits}f}]"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _brief(figures: Mapping[str, Any]) -> str:
    plain = [f"{k} {_text(v)}" for k, v in figures.items() if isinstance(v, int | float)]
    return ", ".join(plain)
