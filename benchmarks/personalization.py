"""Does personalization work on the toybox? s of DreamBooth and LoRA on unseen subjects, in new contexts too.

    python -m benchmarks.personalization                 tune on other subjects, then the test subjects
    python -m benchmarks.personalization --stage tune    the first half alone
    python -m benchmarks.personalization --use dreambooth:learning_rate=3e-4,steps=800    skip the tuning

The settings are chosen on tuning subjects and reported on test subjects, which are others.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import attacking, common
from benchmarks.judging import TRAINING, Counts, Judge, summarize, toybox_judge
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.devices import training_precision
from unlikeness.errors import UsageError
from unlikeness.gallery import grid
from unlikeness.toybox.cast import Member, unseen

NAME = "personalization"
GOAL = 0.6
TUNING_SEED = 1_000
"""First seed of the tuning subjects; the test subjects begin at 0."""
LEAST_CONTEXT = 0.75
"""A setting whose images show less than this share of the requested contexts is not chosen."""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--stage", choices=("tune", "test", "all"), default="all")
    parser.add_argument("--methods", default="dreambooth,lora", help="which, separated by commas")
    parser.add_argument("--subjects", type=int, default=12, help="test subjects, the class nouns in turn")
    parser.add_argument("--tuning", type=int, default=3, help="tuning subjects")
    parser.add_argument("--use", action="append", default=[], metavar="METHOD:NAME=VALUE,...")
    args = parser.parse_args(argv)
    counts = Counts.few() if args.quick else Counts()
    judge, judges = toybox_judge(counts)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    results = common.Results(
        common.results_file(NAME, args), NAME, about(model, args, judges, counts),
        fresh=args.fresh, code=common.code_digest(*attacking.CODE), keep=args.keep,
    )  # fmt: skip
    measure(model, judge, results, args)
    print(render(results.record))


def about(model: TextToImage, args: argparse.Namespace, judges: str, counts: Counts) -> dict[str, Any]:
    """What the cells of one file have in common."""
    return {
        "model": common.model_name(args.model),
        "weights": common.model_digest(model),
        "guidance": model.defaults.guidance,
        "precision": training_precision("auto", model.device),
        "judges": judges,
        "seed": args.seed,
        "quick": args.quick,
        "common": attacking.QUICK_COMMON if args.quick else attacking.COMMON,
        "counts": asdict(counts),
    }


def measure(model: TextToImage, judge: Judge, results: common.Results, args: argparse.Namespace) -> None:
    """Fill the cells that are missing, and sum up."""
    quick = args.quick
    base = attacking.QUICK_COMMON if quick else attacking.COMMON
    grid_of = attacking.QUICK if quick else attacking.GRID
    given = chosen_by_hand(args.use)
    methods = known_methods(args.methods, grid_of, given)
    tuning = unseen(min(args.tuning, 1) if quick else args.tuning, TUNING_SEED + args.seed)
    cast = unseen(min(args.subjects, 2) if quick else args.subjects, args.seed)
    bench = _Bench(model, judge, results, attacking.Priors(model), base, args.seed)
    # What another stage or method has found stays.
    found = results.record["summary"]
    summary: dict[str, Any] = {stage: dict(found.get(stage, {})) for stage in ("tuning", "test")}
    for method in methods:
        rows = [given[method]] if method in given else grid_of[method]
        if method not in given and args.stage in ("tune", "all"):
            for row in rows:
                cells = [bench.cell("tuning", method, row, who) for who in tuning]
                summary["tuning"][f"{method}: {common.settings_text(row)}"] = summarize(cells, seed=args.seed)
                results.finish(summary, device=model.device)
        if args.stage in ("test", "all"):
            best = choose(method, rows, results, [key_of(who) for who in tuning])
            cells = []
            for who in cast:
                cells.append(bench.cell("test", method, best, who))
                summary["test"][method] = {
                    **summarize(cells, seed=args.seed),
                    "settings": attacking.full_settings(method, {**base, **best}),
                    "chosen": best,
                    "by_hand": method in given,
                    "cells": [key("test", method, best, key_of(one)) for one in cast[: len(cells)]],
                }
                results.finish(summary, device=model.device)


def known_methods(
    text: str, grid_of: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Parse --methods. UsageError for one without settings to try, or for --use of another method."""
    methods = [name.strip() for name in text.split(",")]
    for name in methods:
        if name not in grid_of and name not in given:
            raise UsageError(f"--methods {name} has no settings to try; there are {', '.join(grid_of)}")
    for name in given:
        if name not in methods:
            raise UsageError(f"--use {name}:... is for a method that --methods {text} leaves out")
    return methods


def chosen_by_hand(use: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse --use, by method. UsageError for settings of no method."""
    given: dict[str, dict[str, Any]] = {}
    for text in use:
        method, colon, settings = text.partition(":")
        if not colon:
            raise UsageError(f"--use {text} must be METHOD:NAME=VALUE,...")
        full = attacking.full_settings(method, common.parse_settings(settings))
        given[method] = {name: full[name] for name in common.parse_settings(settings)}
    return given


def key(stage: str, method: str, settings: Mapping[str, Any], subject: str) -> str:
    """A cell's key: the same for the same settings in any order."""
    return f"{stage}/{method}/{common.settings_text(dict(sorted(settings.items())))}/{subject}"


def key_of(who: Member) -> str:
    return f"{who.class_noun}-{who.seed}"


def choose(
    method: str, rows: Sequence[dict[str, Any]], results: common.Results, subjects: Sequence[str]
) -> dict[str, Any]:
    """The row with the largest mean s on the tuning subjects among those that keep the context, or if none
    does, among all.

    A single row needs no tuning. UsageError if a row has not been tried on all of them.
    """
    if len(rows) == 1:
        return rows[0]
    scored = []
    for row in rows:
        found = [results.cells.get(key("tuning", method, row, subject)) for subject in subjects]
        cells = [cell for cell in found if cell is not None]
        if len(cells) < len(subjects) or not cells:
            raise UsageError(f"{method} is not tuned yet: run --stage tune first, or give --use {method}:...")
        context = sum(cell["context_read"] for cell in cells) / len(cells)
        scored.append((context >= LEAST_CONTEXT, sum(cell["s"] for cell in cells) / len(cells), row))
    return max(scored, key=lambda entry: entry[:2])[2]


class _Bench:
    """One cell: attack one subject in one way, and evaluate."""

    def __init__(
        self,
        model: TextToImage,
        judge: Judge,
        results: common.Results,
        priors: attacking.Priors,
        base: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.model, self.judge, self.results, self.priors = model, judge, results, priors
        self.base, self.seed = base, seed

    def cell(self, stage: str, method: str, row: Mapping[str, Any], who: Member) -> common.Cell:
        name = key(stage, method, row, key_of(who))

        def compute() -> dict[str, Any]:
            subject = who.subject(TRAINING)
            checkpoint = self.results.work / f"{name.replace('/', '_')}.safetensors"
            settings = {**self.base, **row}
            tuned = attacking.attack(
                self.model, subject, method, settings, priors=self.priors, checkpoint=checkpoint
            )
            figures, pictures = self.judge.look(tuned, who, subject, self.seed)
            sheet = self.results.path.with_suffix("") / f"{stage}-{method}-{key_of(who)}.png"
            if stage == "test":
                save_sheet(sheet, subject.images, pictures, self.judge.counts)
            return figures

        return self.results.cell(name, compute)


def save_sheet(path: Path, training: torch.Tensor, pictures: torch.Tensor, counts: Counts) -> None:
    """The training pictures, then generations, then those in new contexts, one kind a row."""
    there = pictures[counts.generated :]
    columns = max(TRAINING + 3, len(there) and min(len(there), 12))
    white = torch.ones(1, *pictures.shape[1:])
    rows = []
    plain = pictures[: counts.generated]
    for images in (torch.nn.functional.interpolate(training, pictures.shape[-2:]), plain, there):
        row = images[:columns]
        rows += [row, white.expand(columns - len(row), -1, -1, -1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(torch.cat(rows), columns=columns).save(path)


def render(record: Mapping[str, Any]) -> str:
    """The tables of the notes."""
    head = ["method", "s [95 % interval]", "least s", "s, new context", "context read", "class read", "n"]
    rows, subjects = [], []
    tuned: list[str] = []
    by_hand: list[str] = []
    for method, figures in record["summary"].get("test", {}).items():
        count = f"{figures['subjects']} subjects, {figures['pictures']} pictures"
        count += f" and {figures['pictures_new_context']} in a new context"
        rows.append([
            method, common.interval(figures["s"]), f"{figures['s_least']:.2f}",
            f"{figures['s_new_context']:.2f}", common.interval(figures["context_read"]),
            f"{figures['class_read']:.2f}", count,
        ])  # fmt: skip
        said = f"{method}: {common.settings_text(figures['chosen'])}"
        (by_hand if figures["by_hand"] else tuned).append(said)
        subjects += figures["cells"]
    parts = [common.table(head, rows)]
    chosen = f"Settings chosen on other subjects: {'; '.join(tuned)}. " if tuned else ""
    chosen += f"Settings given by hand: {'; '.join(by_hand)}. " if by_hand else ""
    parts.append(
        f"Goal: s ≥ {GOAL}. {chosen}Guidance {record['about']['guidance']:g}, "
        f"{TRAINING} training pictures each, seed {record['about']['seed']}. Intervals: 95 %, bootstrap over "
        "subjects and pictures."
    )
    each = [[*(name.split("/")[1::2]), f"{record['cells'][name]['s']:.2f}",
             f"{record['cells'][name]['context_read']:.2f}"] for name in subjects]  # fmt: skip
    parts.append(common.table(["method", "subject", "s", "context read"], each))
    tuning = record["summary"].get("tuning", {})
    if tuning:
        lines = [[name, f"{f['s']['value']:.2f}", f"{f['context_read']['value']:.2f}", f["subjects"]]
                 for name, f in tuning.items()]  # fmt: skip
        parts.append(common.table(["tried on tuning subjects", "s", "context read", "subjects"], lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    common.main(cli)
