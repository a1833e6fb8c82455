"""Other attackers: s after LoRA, JPEG, resizing, and on a model that no protection has seen.

    python -m benchmarks.other_attackers --other FOLDER
    python -m benchmarks.other_attackers --attackers jpeg-75,half-size --methods rid --subjects 6

`benchmarks.protection` measures the attacker that protections are made for: DreamBooth, on the model that
they were computed with, from the pictures as published. The attackers here use the settings that
`benchmarks.personalization` chose, unless --use gives others. The model of --other is attacked with
DreamBooth and draws class images of its own; without --other that attacker is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import attacking, common, personalization, protection
from benchmarks.judging import TRAINING, Counts, Judge, summarize, toybox_judge
from benchmarks.publishing import QUICK, published, tagged
from unlikeness import purify
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import Member, unseen

NAME = "other_attackers"
CODE = (*protection.CODE, "src/unlikeness/purify")

LABELS = {
    "lora": "LoRA",
    "gentle": "DreamBooth at a tenth of the rate",
    "jpeg-75": "JPEG 75, then DreamBooth",
    "half-size": "half size, then DreamBooth",
    "another-model": "DreamBooth on another model",
}
WASHES: dict[str, tuple[str, dict[str, object]]] = {
    "jpeg-75": ("jpeg", {"quality": 75}),
    "half-size": ("resize", {"factor": 0.5}),
}
METHODS = ("rid", "advdm")
GENTLE = 0.1
"""Times DreamBooth's learning rate. At the full rate even random weights learn the subject from its pictures
(`benchmarks.attack_floor`), so that s tells little about the model."""


@dataclass(frozen=True)
class Attacker:
    """A personalization with all its settings, on the model of `priors`. wash: a purification before it;
    purified clean pictures have no row."""

    name: str
    method: str
    settings: Mapping[str, Any]
    priors: attacking.Priors
    wash: tuple[str, dict[str, object]] | None = None

    def copy(self, subject: Subject, checkpoint: Path) -> TextToImage:
        """The model that has learnt the subject from these pictures."""
        if self.wash is not None:
            name, settings = self.wash
            washed = purify.create(name, settings=settings).purify(subject.images, range(len(subject.images)))
            subject = replace(subject, images=washed)
        return attacking.attack(
            self.priors.model, subject, self.method, self.settings, priors=self.priors, checkpoint=checkpoint
        )


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=12, help="unseen subjects, the class nouns in turn")
    parser.add_argument("--attackers", default=",".join(LABELS), help="which, separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="protections, beside none at all")
    parser.add_argument("--budget", type=int, default=8, help="n/255, a whole number")
    parser.add_argument("--other", default=None, metavar="FOLDER", help="a model that no protection has seen")
    parser.add_argument("--use", action="append", default=[], metavar="METHOD:NAME=VALUE,...")
    args = parser.parse_args(argv)
    methods, _ = protection.asked(args.methods, str(args.budget))
    names = asked(args.attackers, args.other)
    given = personalization.chosen_by_hand(args.use)
    counts = Counts.few() if args.quick else Counts()
    judge, judges = toybox_judge(counts)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    about = personalization.about(model, args, judges, counts)
    settings = {}
    for method in ("dreambooth", "lora"):
        row = given.get(method) or (
            attacking.QUICK[method][0] if args.quick else protection.chosen(method, about["weights"])
        )
        settings[method] = attacking.full_settings(method, {**about["common"], **row})
    other = None
    if args.other:
        other = TextToImage.from_pretrained(args.other, device=args.device, dtype="float32")
    results = common.Results(
        common.results_file(NAME, args), NAME, {**about, **settings},
        fresh=args.fresh, code=common.code_digest(*CODE), keep=args.keep,
    )  # fmt: skip
    measure(
        model, judge, results, attackers(names, model, other, settings),
        cast=unseen(min(args.subjects, 1) if args.quick else args.subjects, args.seed),
        methods=methods, budget=args.budget, seed=args.seed, further=QUICK if args.quick else {},
    )  # fmt: skip
    print(render(results.record))


def asked(names: str, other: str | None) -> list[str]:
    """Parse --attackers. UsageError for an unknown one, or for another-model alone without --other."""
    found = [name.strip() for name in names.split(",")]
    for name in found:
        if name not in LABELS:
            raise UsageError(f"--attackers {name} is none; there are {', '.join(LABELS)}")
    if found == ["another-model"] and not other:
        raise UsageError("another-model needs a model: give its folder with --other")
    return found


def attackers(
    names: Sequence[str],
    model: TextToImage,
    other: TextToImage | None,
    settings: Mapping[str, Mapping[str, Any]],
) -> list[Attacker]:
    """The attackers of these names, without another-model if there is none. Its name holds a digest."""
    priors = attacking.Priors(model)
    made = []
    for name in names:
        if name != "another-model":
            method = "lora" if name == "lora" else "dreambooth"
            own = dict(settings[method])
            if name == "gentle":
                own["learning_rate"] *= GENTLE
            made.append(Attacker(name, method, own, priors, WASHES.get(name)))
        elif other is not None:
            tag = f"{name}@{common.model_digest(other)[:8]}"
            made.append(Attacker(tag, "dreambooth", settings["dreambooth"], attacking.Priors(other)))
    return made


def measure(
    model: TextToImage,
    judge: Judge,
    results: common.Results,
    attackers: Sequence[Attacker],
    *,
    cast: Sequence[Member],
    methods: Sequence[str],
    budget: int,
    seed: int,
    further: Mapping[str, Any],
) -> None:
    """Fill the cells that are missing, subject by subject, and sum up. Protections are against `model`."""
    bench = _Bench(attacking.Priors(model), judge, results, seed, further)
    ways = ["clean", *(f"{tagged(method)}/{budget}" for method in methods)]
    for who in cast:
        for attacker in attackers:
            for way in ways:
                if way != "clean" or attacker.wash is None:
                    key = f"{personalization.key_of(who)}/{attacker.name}/{way}"
                    results.cell(key, partial(bench.compute, who, attacker, way, key))
        results.finish(table_of(results.cells, attackers, seed=seed), device=model.device)


@dataclass(frozen=True)
class _Bench:
    """Publish, attack, evaluate."""

    priors: attacking.Priors
    judge: Judge
    results: common.Results
    seed: int
    further: Mapping[str, Any]

    def compute(self, who: Member, attacker: Attacker, way: str, key: str) -> dict[str, Any]:
        """One cell."""
        clean = who.subject(TRAINING)
        seen = clean
        if way != "clean":
            name, _, budget = way.partition("/")
            images = published(
                self.priors.model, clean, name.partition("@")[0], float(budget), self.seed + who.seed,
                priors=self.priors, attack=self.results.record["about"]["dreambooth"], further=self.further,
            )  # fmt: skip
            seen = replace(clean, images=images)
        tuned = attacker.copy(seen, self.results.work / f"{key.replace('/', '_')}.safetensors")
        figures, _ = self.judge.look(tuned, who, clean, self.seed)
        return figures


def table_of(cells: Mapping[str, common.Cell], attackers: Sequence[Attacker], *, seed: int) -> dict[str, Any]:
    """The summary by attacker and way, each over all subjects that have it.

    Protections of other weights are left out; of other models only the present one stays, if there is one.
    """
    kinds = {attacker.name.partition("@")[0]: attacker.name for attacker in attackers}
    rows: dict[tuple[str, str], list[common.Cell]] = {}
    for key in sorted(cells, key=protection.number):
        _, attacker, way = key.split("/", 2)
        if kinds.get(attacker.partition("@")[0], attacker) == attacker:
            rows.setdefault((attacker, way), []).append(cells[key])
    names = {way.partition("/")[0] for _, way in rows}
    current = {name for name in names if tagged(name.partition("@")[0]) == name}
    order = list(LABELS)
    return {
        f"{attacker}/{way}": summarize(rows[attacker, way], seed=seed)
        for attacker, way in sorted(
            rows, key=lambda row: (order.index(row[0].partition("@")[0]), protection.place(row[1]))
        )
        if way.partition("/")[0] in current
    }


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    head = [
        "attacker",
        "pictures",
        "s [95 % interval]",
        "least s",
        "s, new context",
        "class read",
        "subjects",
    ]
    rows = []
    for key, f in record["summary"].items():
        attacker, _, way = key.partition("/")
        method, _, budget = way.partition("/")
        label = LABELS[attacker.partition("@")[0]]
        rows.append([
            label, f"{method.partition('@')[0]}, {budget}/255" if budget else method,
            common.interval(f["s"]), f"{f['s_least']:.2f}", f"{f['s_new_context']:.2f}",
            f"{f['class_read']:.2f}", f["subjects"],
        ])  # fmt: skip
    about = record["about"]
    each = next((f["pictures"] // f["subjects"] for f in record["summary"].values()), 0)
    said = "; ".join(
        f"{name} with {s['steps']} steps of {s['batch_size']} at {s['learning_rate']:g}"
        for name, s in ((name, about[name]) for name in ("dreambooth", "lora"))
    )
    return "\n\n".join([
        common.table(head, rows),
        f"A row is over the first so many unseen subjects, with {TRAINING} training pictures and {each} "
        f"generated each, seed {about['seed']}; {said}, rank {about['lora']['rank']}. Protections are made "
        "against the toybox alone. Intervals: 95 %, bootstrap. DreamBooth on the pictures as published, "
        "clean and protected, is in the table of `benchmarks.protection`.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
