"""The summary and tables of `experiments.immunization`, and its sheets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judging import summarize
from PIL import Image

from benchmarks import common, protection
from experiments.immunizing import PROTECTIVE
from experiments.rows import ROWS
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.verify.attackers import EVERY, PAPER, attacker

STRENGTHS: dict[str, dict[str, Any]] = {
    "gentle": {"learning_rate": 5e-5},
    "best": {"learning_rate": 1e-4},
    "strong": {"learning_rate": 5e-4},
}
"""Of the attackers, by the names in the tables; LoRAs keep their rate. The first gets s above 0.6 out of the
original and nothing out of random weights. The second is the lowest rate at which the original gives its best
s, the third is the one that benchmarks.personalization chose. These two learn a subject from its pictures
alone (`benchmarks.attack_floor`)."""

CLASS_PICTURES = 200
IN_SHORT = ("paper", "text-encoder", "lora-4", "lora-32", "augmented")
"""The attackers that have a column in the table of one line a model."""

OTHERS = {
    "same class": ("same class", PAPER),
    "another class": ("another class", PAPER),
    "same class renamed": ("same class", attacker("other-identifier")),
}
"""Unprotected subjects: which of `immunizing.others_of`, and the attacker. The last one uses another
identifier than the protected subject's."""


PUBLISHED: dict[str, tuple[str, str]] = {
    "none": ("not immunized", "0.699"),
    "apdm-short": ("the method", "0.138 (N_per 20)"),
    "apdm-no-l2p": ("without L2P (N_per 0)", "0.445"),
    "apdm-unpaired": ("unpaired pictures", "0.277"),
    "apdm-beta-10": ("β = 10", "“markedly weaker”"),
    "apdm-beta-100": ("β = 100", "“markedly weaker”"),
    "apdm-n-per-5": ("N_per 5", "0.337"),
    "apdm-n-per-20": ("N_per 20", "0.138 (N_per 10: 0.210)"),
    "apdm-leak": ("the attacker's gradient leaks in", "its released code"),
}
"""By row: what it is, and DINO similarity after DreamBooth of SD 1.5 on a person, which is to be low."""

ABLATIONS = tuple(row for row in PUBLISHED if row != "none")


def sheet(pairs: Sequence[Sequence[Path]], gap: int = 8) -> Image.Image:
    """Each pair of strips as one line: the first one's upper half, and the lower halves of both."""
    lines = []
    for files in pairs:
        plain, row = (Image.open(file) for file in files)
        width, half = plain.width, plain.height // 2
        line = Image.new("RGB", (3 * width + 2 * gap, half), (255, 255, 255))
        line.paste(plain.crop((0, 0, width, half)), (0, 0))
        for place, strip in enumerate((plain, row), start=1):
            line.paste(strip.crop((0, strip.height - half, width, strip.height)), (place * (width + gap), 0))
        lines.append(line)
    height = sum(line.height + gap for line in lines) - gap
    sheet = Image.new("RGB", (lines[0].width, height), (255, 255, 255))
    for i, line in enumerate(lines):
        sheet.paste(line, (0, i * (lines[0].height + gap)))
    return sheet


def sum_up(results: common.Results, seed: int) -> dict[str, Any]:
    """Per row: s by strength and attacker, other subjects, quality; each over all subjects that have it."""
    names = sorted({name.split("/")[1] for name in results.cells}, key=protection.number)
    summary: dict[str, Any] = {}
    for row in ("none", *ROWS):
        found: dict[str, Any] = {"s": {}, "quality": None}
        for key in sorted({name.split("/", 2)[2] for name in results.cells if name.startswith(f"{row}/")}):
            cells = [
                results.cells[f"{row}/{name}/{key}"]
                for name in names
                if f"{row}/{name}/{key}" in results.cells
            ]
            if not cells or key == "made":
                continue
            if key == "quality":
                found["quality"] = {
                    name: vars(bootstrap_mean([[cell[name]] for cell in cells], seed=seed))
                    for name in cells[0] if isinstance(cells[0][name], float)
                } | {"drift": float(sum(c["fid"] / c["fid_original"] for c in cells) / len(cells) - 1),
                     "subjects": len(cells)}  # fmt: skip
            else:
                found["s"][key] = summarize(cells, seed=seed) | {
                    name: vars(bootstrap_mean([[cell[name]] for cell in cells], seed=seed))
                    for name in PROTECTIVE if all(name in cell for cell in cells)
                }  # fmt: skip
        if found["s"]:
            summary[row] = found
    return summary


def render(record: Mapping[str, Any]) -> str:
    """The tables of the notes."""
    rows = []
    summary = {k: found for k, found in record["summary"].items() if k not in ABLATIONS}
    for row, found in summary.items():
        for strength in STRENGTHS:
            for one in EVERY:
                f = found["s"].get(f"{strength}/{one.name}")
                if f is not None:
                    rows.append([
                        row, strength, one.name, common.interval(f["s"]), f"{f['s_new_context']:.2f}",
                        f"{f['class_read']:.2f}",
                        _shown(f), f["subjects"],
                    ])  # fmt: skip
    head = ["model", "attack", "attacker", "s", "s, new context", "class read", "output", "subjects"]
    any_output = any(line[-2] for line in rows)
    if not any_output:
        head, rows = _without_output(head), [_without_output(line) for line in rows]
    kinds = [
        (strength, kind)
        for strength in STRENGTHS
        for kind in OTHERS
        if any(f"{strength}/{kind}" in found["s"] for found in summary.values())
    ]
    kept, unasked = [], []
    for row, found in summary.items():
        q = found["quality"]
        cells: list[Any] = [row]
        for strength, kind in kinds:
            f = found["s"].get(f"{strength}/{kind}")
            cells.append(None if f is None else common.interval(f["s"]))
        if q is not None:
            cells += [f"{q['fid']['value']:.2f}", f"{q['drift']:+.0%}", f"{q['recall']['value']:.2f}",
                      f"{q['diversity']['value']:.2f}", f"{q['captions_read']['value']:.2f}"]  # fmt: skip
            kept.append(cells)
            shown = [_shown(found["s"].get("/".join(kind), {})) for kind in kinds]
            shown.append(f"{q['protective']['value']:.0%}" if "protective" in q else None)
            if any(shown):
                unasked.append([row, *shown, q["subjects"]])
    renamed = " (renamed: under another identifier than the protected subject's)" * any(
        kind == "same class renamed" for _, kind in kinds
    )
    headings = ["model", *(f"s, {kind}, {strength}" for strength, kind in kinds)]
    about = record["about"]
    return "\n\n".join([
        *_overview(record, summary),
        common.table(head, rows),
        *(["Output: share of images with the protective output, at the training prompt / in new contexts."]
          if any_output else []),
        f"Everything else: s of unprotected subjects after the paper's attack{renamed}; class images.",
        common.table([*headings, "FID", "drift", "recall", "diversity", "captions read"], kept),
        *_unasked(unasked, kinds),
        f"{CLASS_PICTURES} class pictures a subject; FID and recall against renders, in the classifier's "
        "features, drift against the original's own FID; diversity: mean distance in the identity encoder's "
        f"space, over the original's. Seed {about['seed']}. Intervals: 95 %, bootstrap over subjects and "
        "pictures.",
        *common.made_on(record["cells"]),
        *_taken(record, summary),
        *_ablations(record),
    ])  # fmt: skip


def _overview(record: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """One line a model: s by attacker with the number of subjects, unprotected subjects, cost."""
    rows = []
    for row, found in summary.items():
        gentle = {
            name: f for key, f in found["s"].items() for strength, _, name in [key.partition("/")]
            if strength == "gentle"
        }  # fmt: skip
        known = {one.name: gentle[one.name] for one in EVERY if one.name in gentle}
        if "paper" not in known:
            continue
        worst = max(known, key=lambda name: known[name]["s"]["value"])
        quality, took = found["quality"], _took(record, row)
        rows.append([
            row,
            *(_counted(known.get(name)) for name in IN_SHORT),
            f"{known[worst]['s']['value']:.2f} ({worst})",
            _shown(known["paper"]), _shown(gentle.get("same class", {})),
            *(_counted(gentle.get(kind)) for kind in ("same class", "another class")),
            None if quality is None else f"{quality['drift']:+.0%}",
            None if took is None else f"{took['pictures_with_gradient']:,.0f}",
            None if took is None else took["minutes"],
        ])  # fmt: skip
    head = [
        "model", *IN_SHORT, "worst", "output", "output, same class", "same class", "another class",
        "FID drift", "pictures with a gradient", "minutes",
    ]  # fmt: skip
    title = "In short: s (subjects) after a gentle attack, by attacker, and of unprotected subjects."
    return [title, common.table(head, rows), "All attackers:"] if rows else []


def _counted(found: Mapping[str, Any] | None) -> str | None:
    return None if found is None else f"{found['s']['value']:.2f} ({found['subjects']})"


def _shown(found: Mapping[str, Any]) -> str | None:
    """ "40% / 75%": the output's share at the training prompt and in new contexts; None if there is none."""
    return " / ".join(f"{found[one]['value']:.0%}" for one in PROTECTIVE if one in found) or None


def _unasked(rows: Sequence[Sequence[Any]], kinds: Sequence[tuple[str, str]]) -> list[str]:
    """The table of protective outputs where none should be, if a row has one."""
    if not rows:
        return []
    head = ["model", *(f"{kind}, {strength}" for strength, kind in kinds), "class prompt", "subjects"]
    return [
        "Protective outputs where none should be: unprotected subjects after the paper's attack; class "
        "images before any attack.",
        common.table(head, rows),
    ]


def _took(record: Mapping[str, Any], row: str) -> dict[str, Any] | None:
    """The mean cost of the row's models; minutes of those made on one core."""
    keys = [key for key in record["cells"] if key.startswith(f"{row}/") and key.endswith("/made")]
    if not keys:
        return None
    took = [record["cells"][key] for key in keys]
    timed = [one["made_seconds"] / 60 for one in took if common.comparable(one)]
    return {
        **{
            name: sum(one[name] for one in took) / len(took)
            for name in ("outer_steps", "pictures_with_gradient", "pictures_without")
        },
        "minutes": f"{sum(timed) / len(timed):.0f}" if timed else None,
        "models": len(took),
    }


def _taken(record: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """The table of costs by row."""
    rows = [
        [
            row, round(took["outer_steps"]), f"{took['pictures_with_gradient']:,.0f}",
            f"{took['pictures_without']:,.0f}", took["minutes"], took["models"],
        ]
        for row in summary
        if (took := _took(record, row)) is not None
    ]  # fmt: skip
    head = ["model", "outer steps", "pictures with a gradient", "without", "minutes on one core", "models"]
    return ["What a model takes, in pictures through U-Nets:", common.table(head, rows)] if rows else []


def _without_output(line: list[Any]) -> list[Any]:
    return [*line[:-2], line[-1]]


def _ablations(record: Mapping[str, Any]) -> list[str]:
    """The table and what it says, as paragraphs; nothing where no row of it has been measured. All rows are
    of the subjects that the first ablation has."""
    names = sorted({key.split("/")[1] for key in record["cells"] if key.startswith(f"{ABLATIONS[0]}/")})
    if not names:
        return []
    seed, rows = record["about"]["seed"], []
    for row, (what, published) in PUBLISHED.items():
        cells = _cells(record, row, names, "gentle/paper")
        quality = _cells(record, row, names, "quality")
        rows.append([
            what, published, common.interval(summarize(cells, seed=seed)["s"]) if cells else None,
            *(
                [f"{_mean_of(quality, 'fid') / _mean_of(quality, 'fid_original') - 1:+.0%}",
                 f"{_mean_of(quality, 'recall'):.2f}", f"{_mean_of(quality, 'diversity'):.2f}"]
                if quality else [None] * 3
            ),
        ])  # fmt: skip
    head = ["APDM", "published: DINO, SD 1.5", "s, here", "FID drift", "recall", "diversity"]
    return [
        "APDM's ablations, in the paper's order:",
        common.table(head, rows),
        f"The paper's attacker, gentle, on {', '.join(names)}. Ours have 100 outer steps and N_per 10 unless "
        "the line says another. The two scales cannot be compared; their orders can.",
    ]


def _cells(
    record: Mapping[str, Any], row: str, names: list[str], end: str
) -> list[Mapping[str, Any]]:
    """Of those subjects that have one."""
    keys = [f"{row}/{name}/{end}" for name in names]
    return [record["cells"][key] for key in keys if key in record["cells"]]


def _mean_of(cells: list[Mapping[str, Any]], name: str) -> float:
    return sum(float(cell[name]) for cell in cells) / len(cells)
