"""APDM's ablations (its Tables 4 to 7), the published figures beside ours: a table of `immunization`.

    python -m experiments.immunization --rows apdm-short,apdm-no-l2p,... --attackers paper --others none
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.judging import summarize

from benchmarks import common

__all__ = ["ABLATIONS", "PUBLISHED", "render"]

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


def render(record: Mapping[str, Any]) -> list[str]:
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
                [f"{_mean(quality, 'fid') / _mean(quality, 'fid_original') - 1:+.0%}",
                 f"{_mean(quality, 'recall'):.2f}", f"{_mean(quality, 'diversity'):.2f}"]
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


def _mean(cells: list[Mapping[str, Any]], name: str) -> float:
    return sum(float(cell[name]) for cell in cells) / len(cells)
