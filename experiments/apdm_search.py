"""At which settings is a published method at its best? Successive halving on two tuning subjects.

    python -m experiments.apdm_search
    python -m experiments.apdm_search --searches imma,naive
    python -m experiments.apdm_search --merge COPY      add the cells of a copy and update the summary

A search starts with many rows (`experiments/configs/search.yaml`). The first round is short, with one person
and few attackers. After each round the better half continues from its last state, with more outer steps, more
attackers, and a dog. A row's score is the mean of s over attackers and subjects, plus the drift of the class
above 15 %, plus what recall and diversity lack of 90 % of the original's. For a protective output, the share
of images without it is added. The subjects, tuning subjects 6 and 7, are in no other table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import common, personalization
from experiments import merge
from experiments.immunization import CODE, Bench
from experiments.immunization_tables import STRENGTHS
from experiments.immunizing import opened
from experiments.rows import SEARCHES as CONFIGURED
from experiments.rows import settings_of
from unlikeness.errors import NotFiniteError, UsageError
from unlikeness.toybox.cast import Member, member
from unlikeness.verify.attackers import PAPER, Attacker, attacker

NAME = "apdm_search"
MOST_DRIFT, LEAST_KEPT = 0.15, 0.9
GIVE_UP = 0.5
"""If the class alone costs a row this much, no attack is run and the row is out."""

EVERY = (
    PAPER, attacker("text-encoder"), attacker("lora-4"),
    Attacker("lora-16", "a LoRA of rank 16", method="lora", further={"rank": 16}),
)  # fmt: skip
FEW = (EVERY[0], EVERY[2])


@dataclass(frozen=True)
class Rung:
    """One round. steps: outer ones, 0 for those of the row; subjects: of the cast the first so many."""

    steps: int
    subjects: int
    attackers: Sequence[Attacker] = EVERY

    def row(self, name: str) -> str:
        """The row's name at this length."""
        return f"{name}@{self.steps}" if self.steps else name


@dataclass(frozen=True)
class Search:
    """Rows, and the rounds in which half of them go on each time."""

    rows: Sequence[str]
    rungs: Sequence[Rung]


def _search(rows: Sequence[str], rounds: Sequence[Mapping[str, Any]]) -> Search:
    """From experiments/configs/search.yaml."""
    return Search(rows, [
        Rung(one["steps"], one["subjects"], [a for a in EVERY if a.name in one["attackers"]])
        for one in rounds
    ])  # fmt: skip


SEARCHES = {name: _search(**search) for name, search in CONFIGURED.items()}


def cast_of(seed: int) -> list[Member]:
    """A person and a dog."""
    first = personalization.TUNING_SEED + seed
    return [member(first + 6, "person"), member(first + 7, "dog")]


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--searches", default="apdm", help=f"of {', '.join(SEARCHES)}, one after the other")
    parser.add_argument("--rungs", type=int, help="only the first so many rounds")
    parser.add_argument("--skip", type=int, default=0, help="the first so many rows: another process's")
    parser.add_argument("--merge", type=Path, metavar="COPY", help="add a copy's cells; compute nothing")
    args = parser.parse_args(argv)
    if args.merge:
        merge_copy(common.results_file(NAME, args, common.EXPERIMENTS), args.merge, args.seed)
        return
    if wrong := [word for word in args.searches.split(",") if word not in SEARCHES]:
        raise UsageError(f"--searches {wrong[0]} is none; there are {', '.join(SEARCHES)}")
    model, judge, results = opened(NAME, args, CODE, strengths=STRENGTHS)
    bench = Bench(model, judge, results, args.seed, quick=args.quick, resumes=True, others=())
    cast = cast_of(args.seed)
    for name in args.searches.split(","):
        search = SEARCHES[name]
        if args.quick:
            rungs = [replace(rung, steps=n) for n, rung in enumerate(search.rungs[:2], start=1)]
            search = Search(search.rows[:2], [replace(rung, attackers=EVERY[:1]) for rung in rungs])
        search = Search(search.rows[args.skip :], search.rungs[: 1 if args.skip else args.rungs])
        run(bench, search, cast)
        results.finish(sum_up(results.cells, cast), device=model.device)
    print(render(results.record))


def merge_copy(path: Path, copy: Path, seed: int) -> None:
    """Add the cells of a copy of the results file, and update the summary."""
    merge.cli([str(path), str(copy)])
    record = common.load(path)
    results = common.Results(path, NAME, record["about"], keep=True)
    results.record["summary"] = sum_up(results.cells, cast_of(seed))
    results.record.setdefault("environment", common.environment())
    results.save()


def run(bench: Bench, search: Search, cast: Sequence[Member]) -> list[str]:
    """Every round; the names of the rows that are left after the last one, the best first."""
    left = list(search.rows)
    for rung in search.rungs:
        scores = {}
        for name in left:
            measure(bench, rung.row(name), cast[: rung.subjects], rung.attackers)
            bench.results.finish(sum_up(bench.results.cells, cast), device=bench.model.device)
            scores[name] = score(bench.results.cells, rung.row(name), cast[: rung.subjects])
        left = sorted(left, key=lambda name: scores[name])[: (len(left) + 1) // 2]
        print(f"{rung.steps} outer steps: {', '.join(left)} of {', '.join(scores)} go on", flush=True)
    return left


def measure(bench: Bench, row: str, cast: Sequence[Member], chosen: Sequence[Attacker]) -> None:
    """Fill the cells of one row: the class first, and attacks only where it is left."""
    for who in cast:
        bench.measure("none", who, chosen)
        try:
            bench.measure(row, who, ())
        except NotFiniteError as error:
            print(f"{row}: {error}", flush=True)
            return
        if cost_of_class(bench.results.cells[f"{row}/{personalization.key_of(who)}/quality"]) > GIVE_UP:
            return
        bench.measure(row, who, chosen)


def cost_of_class(quality: Mapping[str, Any]) -> float:
    """What a row loses of its score for what it does to the class."""
    drift = quality["fid"] / quality["fid_original"] - 1
    recall = quality["recall"] / max(quality["recall_original"], 1e-9)
    return float(
        max(drift - MOST_DRIFT, 0) + max(LEAST_KEPT - recall, 0) + max(LEAST_KEPT - quality["diversity"], 0)
    )


def score(cells: Mapping[str, common.Cell], row: str, cast: Sequence[Member]) -> float:
    """Lower is better, over what has been measured on these subjects; a row that was given up comes last."""
    parts = []
    for who in cast:
        found = of_subject(cells, row, who)
        if not found["attacked"]:
            return float("inf") if found["quality"] is None else 10 + cost_of_class(found["quality"])
        s = [float(one["s"] + 1 - one.get("protective", 1.0)) for one in found["attacked"].values()]
        parts.append(sum(s) / len(s) + cost_of_class(found["quality"]))
    return sum(parts) / len(parts)


def of_subject(cells: Mapping[str, common.Cell], row: str, who: Member) -> dict[str, Any]:
    """The row's cells of one subject: of its class, of attackers by name, and what it took; None or {}."""
    key = f"{row}/{personalization.key_of(who)}"
    attacked = {one.name: cells.get(f"{key}/gentle/{one.name}") for one in EVERY}
    return {
        "quality": cells.get(f"{key}/quality"), "made": cells.get(f"{key}/made"),
        "attacked": {name: cell for name, cell in attacked.items() if cell is not None},
    }  # fmt: skip


def sum_up(cells: Mapping[str, common.Cell], cast: Sequence[Member]) -> dict[str, Any]:
    """Per search: its lines in the order of the rounds, each a row at a length with its figures."""
    known = [who for who in cast if _has(cells, "none", who)]
    summary: dict[str, Any] = {"original": [line(cells, "none", who) for who in known]}
    for name, search in SEARCHES.items():
        lines = [
            line(cells, row, who)
            for row in dict.fromkeys(_row(one) for one in cells)
            if row.partition("@")[0] in search.rows
            for who in cast if _has(cells, row, who)
        ]  # fmt: skip
        if lines:
            summary[name] = lines
    return summary


def _row(key: str) -> str:
    return key.split("/")[0]


def _has(cells: Mapping[str, common.Cell], row: str, who: Member) -> bool:
    return f"{row}/{personalization.key_of(who)}/quality" in cells


def line(cells: Mapping[str, common.Cell], row: str, who: Member) -> dict[str, Any]:
    """A row's figures of one subject."""
    found = of_subject(cells, row, who)
    quality, made, attacked = found["quality"], found["made"], found["attacked"]
    return {
        "row": row, "subject": personalization.key_of(who), "s": {n: one["s"] for n, one in attacked.items()},
        "notice": {n: one["protective"] for n, one in attacked.items() if "protective" in one},
        "drift": quality["fid"] / quality["fid_original"] - 1,
        "recall": quality["recall"] / max(quality["recall_original"], 1e-9),
        "diversity": quality["diversity"],
        "score": score(cells, row, [who]) if attacked else None,
        "pictures_with_gradient": None if made is None else made["pictures_with_gradient"],
        "minutes": None if made is None else round(made["made_seconds"] / 60, 1),
    }  # fmt: skip


SHORT = {
    "learning_rate": "rate", "beta": "β", "inner_steps": "N_per", "attack_learning_rate": "attack's rate",
    "attack_text_encoder": "text encoder", "preserve_weight": "class held", "retention_weight": "λ2",
    "class_weight": "λ1", "at_training_prompt": "at training prompt", "train": "weights",
}  # fmt: skip
"""Settings that differ between the rows of a search, as its table calls them."""


def render(record: Mapping[str, Any]) -> str:
    """The tables of the notes."""
    parts = []
    original = record["summary"].get("original", [])
    for name, lines in record["summary"].items():
        if name == "original":
            continue
        every = [settings_of(row)[1] for row in SEARCHES[name].rows]
        varied = [k for k in SHORT if len({str(one.get(k)) for one in every}) > 1]
        any_output = any(one["notice"] for one in lines)
        rows = [[
            one["row"], one["subject"],
            *(_setting(k, settings_of(one["row"])[1].get(k)) for k in varied),
            *(_two(one["s"].get(a.name)) for a in EVERY),
            *([_two(one["notice"].get(PAPER.name))] if any_output else []),
            f"{one['drift']:+.0%}", _two(one["recall"]), _two(one["diversity"]), _two(one["score"]),
            None if one["pictures_with_gradient"] is None else f"{one['pictures_with_gradient']:,}",
        ] for one in [*original, *lines]]  # fmt: skip
        head = [
            "row@outer steps", "subject", *(SHORT[k] for k in varied), *(f"s, {a.name}" for a in EVERY),
            *(["output, paper"] if any_output else []), "FID drift", "recall", "diversity", "score",
            "pictures with a gradient",
        ]  # fmt: skip
        parts += [f"`{name}`:", common.table(head, rows)]
    return "\n\n".join([
        *parts,
        f"Score: the mean of s, plus what the drift is above {MOST_DRIFT:.0%}, and what recall and "
        f"diversity, shares of the original's, are below {LEAST_KEPT:.0%}; of a protective output also the "
        "share of images without it. A row without figures of attackers was given up for what it does to the "
        f"class. Half of each round goes on. One model a line; attacks are gentle. "
        f"Seed {record['about']['seed']}.",
    ])  # fmt: skip


def _setting(name: str, value: Any) -> str | None:
    if name == "preserve_weight":
        return "yes" if value else "no" if value is not None else None
    return None if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def _two(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


if __name__ == "__main__":
    common.main(cli)
