"""How many subjects can share a model? s, unprotected subjects' s and the class, against their number.

    python -m experiments.many_subjects --counts 1,4,16
    python -m experiments.many_subjects --counts 4 --schedule sequential
    python -m experiments.many_subjects --row pattern-aware --counts 8 --attacked 8 --attackers paper,gray-box

Per number N: one model that protects the first N unseen subjects; then the paper's attacker at its gentle
strength (`experiments.immunization`) on the first of them, the same for every N, and on two unprotected
subjects; other attackers on the protected ones, with --attackers; and class images. "joint": one run with all
of them, whose length grows with their number. "sequential": one run after the other, each on the model that
protects the earlier subjects. "sampled": one run of a fixed length, in which some subjects are not attacked
at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.judging import Counts, summarize, toybox_judge

from benchmarks import common, personalization
from experiments.immunization import CODE, Bench, possible
from experiments.immunization_tables import STRENGTHS
from experiments.immunizing import PROTECTIVE, others_of, what_it_took
from experiments.leak import create
from experiments.rows import ROWS, SCALE
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.toybox.cast import Member, unseen
from unlikeness.verify.attack import Priors
from unlikeness.verify.attackers import EVERY, PAPER, Attacker, named

NAME = "many_subjects"
SCHEDULES = ("joint", "sequential", "sampled")
STRENGTH = "gentle"
OTHERS = tuple(one.name for one in EVERY if one is not PAPER)
"""Attackers of the protected; the paper's cells are called "protected"."""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--counts", default="1,4,16,64", help="numbers of protected subjects")
    parser.add_argument("--row", default="divert", help="of experiments/configs")
    parser.add_argument("--schedule", default="joint", help=f"one of {', '.join(SCHEDULES)}")
    parser.add_argument(
        "--steps-each", type=int, default=200, help="outer steps for each subject; for all if sampled"
    )  # fmt: skip
    parser.add_argument("--attacked", type=int, default=4, help="of the protected, the first so many")
    parser.add_argument("--attackers", default=PAPER.name, help="on the protected: of unlikeness verify's")
    args = parser.parse_args(argv)
    if args.row not in ROWS:
        raise UsageError(f"--row {args.row} is none; there are {', '.join(ROWS)}")
    if args.schedule not in SCHEDULES:
        raise UsageError(f"--schedule {args.schedule} is none; there are {', '.join(SCHEDULES)}")
    chosen = [one for one in named(args.attackers.split(",")) if possible(one, args.row)]
    numbers = sorted({int(text) for text in args.counts.split(",")})
    counts = Counts.few() if args.quick else Counts()
    judge, judges = toybox_judge(counts)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    about = {
        **personalization.about(model, args, judges, counts),
        "scale": SCALE, "attack": STRENGTHS[STRENGTH],
    }  # fmt: skip
    results = common.Results(
        common.results_file(NAME, args, common.EXPERIMENTS), NAME, about,
        fresh=args.fresh, keep=args.keep, code=common.code_digest(*CODE),
    )  # fmt: skip
    run = Run(
        Bench(model, judge, results, args.seed, quick=args.quick),
        args.row, args.schedule, 2 if args.quick else args.steps_each,
    )  # fmt: skip
    for number in numbers[: 1 if args.quick else None]:
        run.measure(unseen(number, args.seed), args.attacked, chosen)
        results.finish(sum_up(results, args.seed), device=model.device)
    print(render(results.record))


@dataclass
class Run:
    """One method and schedule, in a bench that has the model, the judges and the results file."""

    bench: Bench
    row: str
    schedule: str
    each: int

    def measure(self, cast: Sequence[Member], attacked: int, chosen: Sequence[Attacker] = (PAPER,)) -> None:
        """Fill the missing cells of a model that protects `cast`."""
        bench, key = self.bench, f"{self.row}, {self.schedule}, {self.each}/{len(cast)}"
        released = self.released(cast, key)
        drawn, base = Priors(released), bench.base(STRENGTH, self.row)

        def attack(who: Member, name: str, one: Attacker = PAPER, protected: Member | None = None) -> None:
            called = personalization.key_of(who)
            bench.results.cell(
                f"{key}/{name}/{called}",
                lambda: bench.attacked(
                    released, who, one, base, drawn, f"{key.replace(', ', '-')}-{called}", self.row,
                    protected,
                ),
            )

        bench.results.cell(f"{key}/quality", lambda: bench.quality(released, cast[0], self.row))
        for one in chosen:
            for who in cast[:attacked]:
                attack(who, "protected" if one is PAPER else one.name, one)
        for kind, who in others_of(cast[0]).items():
            attack(who, kind, protected=cast[0])

    def released(self, cast: Sequence[Member], key: str) -> TextToImage:
        """The model, which is kept in a file."""
        maker, released = self.bench.maker, self.bench.model
        together = [[who] for who in cast] if self.schedule == "sequential" else [list(cast)]
        files = []
        for number, group in enumerate(together):
            method, values = self.settings(group)
            so_far = [who.seed for earlier in together[: number + 1] for who in earlier]
            name = f"{self.row}-{self.schedule}-{len(so_far)}"
            files.append(maker.file(name, {**values, "method": method, "subjects": so_far}))
            if not files[-1].exists():
                maker.run(released, group, create(method, values), files[-1])
            released = maker.opened(files[-1])
        self.bench.results.cell(f"{key}/made", lambda: summed([what_it_took(file) for file in files]))
        return released

    def settings(self, group: Sequence[Member]) -> tuple[str, dict[str, Any]]:
        """(method, settings) for a run that protects `group`."""
        method, further = ROWS[self.row]
        values = self.bench.maker.values(further, group)
        values["outer_steps"] = self.each * (1 if self.schedule == "sampled" else len(group))
        return method, values


def summed(took: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The total cost of several runs; the last one's loss and GPU."""
    names = ("made_seconds", "outer_steps", "pictures_with_gradient", "pictures_without")
    last = {name: took[-1][name] for name in ("loss_last", "device") if name in took[-1]}
    return {name: sum(one[name] for one in took) for name in names} | last


def sum_up(results: common.Results, seed: int) -> dict[str, Any]:
    """Per method and number: s of the protected and of two others, the class, what it took."""
    summary: dict[str, Any] = {}
    for key in sorted({name.rsplit("/made", 1)[0] for name in results.cells if name.endswith("/made")}):
        found: dict[str, Any] = {"made": results.cells[f"{key}/made"]}
        for name in ("protected", "same class", "another class", *OTHERS):
            cells = [cell for at, cell in results.cells.items() if at.startswith(f"{key}/{name}/")]
            if cells:
                found[name] = summarize(cells, seed=seed) | {
                    share: sum(cell[share] for cell in cells) / len(cells)
                    for share in PROTECTIVE
                    if all(share in cell for cell in cells)
                }
        quality = results.cells.get(f"{key}/quality")
        if quality is not None:
            found["quality"] = {
                "drift": quality["fid"] / quality["fid_original"] - 1,
                "diversity": quality["diversity"],
                **{name: quality[name] for name in PROTECTIVE if name in quality},
            }
        summary[key] = found
    return summary


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    rows = []
    for key, found in sorted(record["summary"].items(), key=_place):
        how, _, number = key.rpartition("/")
        made, quality, protected = found["made"], found.get("quality"), found.get("protected", {})
        rows.append([
            how, int(number), *(
                None if name not in found else common.interval(found[name]["s"])
                for name in ("protected", "same class", "another class")
            ),
            _shown(protected),
            *(_shown(found.get(name, {})) for name in ("same class", "another class")),
            _shown(quality or {}),
            None if quality is None else f"{quality['drift']:+.0%}",
            None if quality is None else f"{quality['diversity']:.2f}",
            f"{made['pictures_with_gradient']:,}",
            f"{made['made_seconds'] / 60:.0f}" if common.comparable(made) else None,
            protected.get("subjects", 0),
        ])  # fmt: skip
    head = [
        "method, schedule, outer steps", "protected", "s of the protected", "s, same class",
        "s, another class", "output", "output, same class", "output, another class", "output, class prompt",
        "FID drift", "diversity", "pictures with a gradient", "minutes", "attacked",
    ]  # fmt: skip
    about = record["about"]
    return "\n\n".join([
        common.table(head, rows),
        *_by_attacker(record["summary"]),
        *common.made_on(record["cells"]),
        f"The paper's attacker at a learning rate of {about['attack']['learning_rate']:g}; s of two "
        "unprotected subjects. Outer steps: for each subject; of sampled ones for all. Output: share of "
        "images with the protective output, at the training prompt / in new contexts; then that share of "
        "unprotected subjects' images and of class images, which should be none. Drift and diversity of the "
        "first subject's class, against the original's. "
        f"Seed {about['seed']}. Intervals: 95 %, bootstrap over subjects and pictures.",
    ])  # fmt: skip


def _by_attacker(summary: Mapping[str, Any]) -> list[str]:
    """The table of other attackers on the protected subjects."""
    rows = []
    for key, found in sorted(summary.items(), key=_place):
        how, _, number = key.rpartition("/")
        rows += [
            [how, int(number), name, common.interval(f["s"]), f"{f['s_new_context']:.2f}", _shown(f),
             f["subjects"]]
            for name in OTHERS
            if (f := found.get(name)) is not None
        ]  # fmt: skip
    head = [
        "method, schedule, outer steps", "protected", "attacker", "s", "s, new context", "output", "attacked",
    ]  # fmt: skip
    return ["Other attackers on the protected:", common.table(head, rows)] if rows else []


def _shown(found: Mapping[str, Any]) -> str | None:
    """ "40% / 75%": the output's share at the training prompt and in new contexts; None if there is none."""
    return " / ".join(f"{found[one]:.0%}" for one in PROTECTIVE if one in found) or None


def _place(item: tuple[str, Any]) -> tuple[str, int]:
    how, _, number = item[0].rpartition("/")
    return how, int(number)


if __name__ == "__main__":
    common.main(cli)
