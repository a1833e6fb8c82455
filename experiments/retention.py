"""How long does a protection last? s, and the protective output's share, against an attacker's patience.

    python -m experiments.retention --rows none,target,target-aware

Per row (a method and its settings, `experiments/configs`), unseen subject and learning rate: one
DreamBooth training of the immunized model, looked at after 100, 200, 400, 800 and 1,600 steps; and before
any, together with the pull of the subject's pictures and of an unprotected subject's (`gradient`),
who is personalized too. A row's cost to the attacker is the ratio of steps to s = 0.5 with and without it. A
plot shows the costs of a backdoor against its effect: how much the released model knows of the subject, and
what is left of s for the unprotected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from benchmarks.judging import TRAINING, Judge, summarize

from benchmarks import attacking, common, personalization
from experiments.gradient import gradient_norm
from experiments.immunizing import ENGINE, Maker, opened, others_of, protective_of, shares
from experiments.plotting import curves
from experiments.rows import ROWS, rows_of
from unlikeness import personalize
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.gallery import grid
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.toybox.cast import Member, unseen

NAME = "retention"
CODE = (*attacking.CODE, *ENGINE)
STEPS = (100, 200, 400, 800, 1600)
RATES = (5e-5, 1e-4)
"""At the first, random weights learn nothing in 400 steps. The second is the lowest that gets the best s out
of the original (`benchmarks.attack_floor`)."""
USUAL = 400
"""Steps of the attack on an unprotected subject, and of the one that the frontiers show."""
PAID = 0.5
"""The s up to which an attacker's steps are counted."""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=8, help="unseen subjects, the class nouns in turn")
    parser.add_argument("--rows", default="none,apdm")
    parser.add_argument("--rates", default=",".join(f"{rate:g}" for rate in RATES))
    parser.add_argument("--steps", default=",".join(map(str, STEPS)), help="at which the attack is looked at")
    args = parser.parse_args(argv)
    rows = rows_of(args.rows)
    model, judge, results = opened(NAME, args, CODE)
    bench = Bench(model, judge, results, args.seed, quick=args.quick)
    steps = (1, 2) if args.quick else sorted(int(text) for text in args.steps.split(","))
    rates = [float(text) for text in args.rates.split(",")][: 1 if args.quick else None]
    cast = unseen(1 if args.quick else args.subjects, args.seed)
    for count, who in enumerate(cast, start=1):
        for row in rows:
            bench.measure(row, who, rates, steps)
        results.finish(sum_up(results, cast[:count], args.seed), device=model.device)
    draw(results.record, results.path)
    print(render(results.record))


@dataclass
class Bench:
    """The model, its judge and the results file."""

    model: TextToImage
    judge: Judge
    results: common.Results
    seed: int
    quick: bool = False

    def __post_init__(self) -> None:
        self.maker = Maker(self.model, self.results, self.quick)

    def measure(self, row: str, who: Member, rates: Sequence[float], steps: Sequence[int]) -> None:
        """Fill this row's missing cells of one subject."""
        key = f"{row}/{personalization.key_of(who)}"
        wanted = [f"{key}/{rate:g}/{n}" for rate in rates for n in steps]
        wanted += [f"{key}/released", f"{key}/unprotected"]
        if all(name in self.results.cells for name in wanted):
            return
        released = self.maker.released(row, who)
        self.results.cell(f"{key}/released", lambda: self.before(row, released, who))
        self.results.cell(f"{key}/unprotected", lambda: self.unprotected(row, released, who, min(rates)))
        for rate in rates:
            if any(f"{key}/{rate:g}/{n}" not in self.results.cells for n in steps):
                self.attacked(row, released, who, rate, steps)

    def before(self, row: str, released: TextToImage, who: Member) -> dict[str, Any]:
        """The released model before any attack: does it draw the subject, and how large are the gradients?"""
        figures = self.looked_at(row, released, who, "released")
        levels = 2 if self.quick else 20
        for name, one in (("subject", who), ("other", others_of(who)["same class"])):
            subject = one.subject(TRAINING)
            pull, noise = gradient_norm(
                released, subject.images, subject.instance_prompt, seed=self.seed, levels=levels
            )
            figures |= {f"pull_{name}": pull, f"noise_{name}": noise}
        return figures

    def unprotected(self, row: str, released: TextToImage, who: Member, rate: float) -> dict[str, Any]:
        """The same training on an unprotected subject of the class."""
        other = others_of(who)["same class"]
        base = attacking.QUICK_COMMON if self.quick else attacking.COMMON
        state = self.results.work / f"other-{row}-{rate:g}-{who.seed}-{fingerprint(released)}.safetensors"
        tuned = attacking.attack(
            released, other.subject(TRAINING), "dreambooth",
            {**base, "learning_rate": rate, "steps": 2 if self.quick else USUAL},
            priors=attacking.Priors(released), checkpoint=state,
        )  # fmt: skip
        figures, pictures = self.judge.look(tuned, other, other.subject(TRAINING), self.seed)
        shown = protective_of(row, other, pictures, self.judge.reader, who)
        return figures | shares(shown, self.judge.counts.generated) | common.on_gpu(released.device)

    def attacked(
        self, row: str, released: TextToImage, who: Member, rate: float, steps: Sequence[int]
    ) -> None:
        """One training in pieces; each ends with an evaluation."""
        key = f"{row}/{personalization.key_of(who)}/{rate:g}"
        base = attacking.QUICK_COMMON if self.quick else attacking.COMMON
        priors = attacking.Priors(released)
        name = f"{key.replace('/', '-')}-{fingerprint(released)}.safetensors"
        state = self.results.work / "retention" / name
        state.parent.mkdir(parents=True, exist_ok=True)
        for n in steps:
            if f"{key}/{n}" in self.results.cells:
                continue  # the next piece goes on from its state, or trains these steps too
            settings = attacking.full_settings("dreambooth", {**base, "learning_rate": rate, "steps": n})
            made = personalize.create("dreambooth", settings)
            prior = priors.of(who.class_noun, made.settings)
            tuned = personalize.personalize(
                released, who.subject(TRAINING), made, prior=prior, checkpoint=state
            )
            name = f"{rate:g}-{n}"
            self.results.cell(
                f"{key}/{n}",
                lambda tuned=tuned, name=name: self.looked_at(row, tuned, who, name),  # type: ignore[misc]
            )
        state.unlink(missing_ok=True)

    def looked_at(self, row: str, model: TextToImage, who: Member, name: str) -> dict[str, Any]:
        """s and, for a backdoor, the share of pictures that show the protective output."""
        figures, pictures = self.judge.look(model, who, who.subject(TRAINING), self.seed)
        n = self.judge.counts.generated
        figures |= shares(protective_of(row, who, pictures, self.judge.reader), n)
        strip = self.strip(row, who, name)
        strip.parent.mkdir(parents=True, exist_ok=True)
        grid(torch.cat([pictures[:5], pictures[n : n + 5]]), columns=10).save(strip)
        return figures | common.on_gpu(model.device)

    def strip(self, row: str, who: Member, name: str) -> Path:
        """Where the pictures of one look are kept."""
        return self.results.work / "pictures" / f"{row}-{personalization.key_of(who)}-{name}.png"


def sum_up(results: common.Results, cast: Sequence[Member], seed: int) -> dict[str, Any]:
    """Per row: what it is before an attack, and the curve of each learning rate."""
    names = [personalization.key_of(who) for who in cast]
    summary: dict[str, Any] = {}
    for row in ("none", *ROWS):
        keys = {key.split("/", 2)[2] for key in results.cells if key.startswith(f"{row}/")} - {"made"}
        found: dict[str, Any] = {}
        for key in sorted(keys, key=_order):
            cells = [
                results.cells[f"{row}/{name}/{key}"]
                for name in names
                if f"{row}/{name}/{key}" in results.cells
            ]
            if cells:
                found[key] = summarize(cells, seed=seed) | {
                    name: vars(bootstrap_mean([[cell[name]] for cell in cells], seed=seed))
                    for name in cells[0]
                    if name.startswith(("protective", "pull", "noise"))
                }
        if found:
            summary[row] = found
    for row, found in summary.items():
        if row != "none":
            found["cost"] = {
                rate: ratio
                for rate in _rates(found)
                if (ratio := delay(found, summary.get("none", {}), rate))
            }
    return summary


def _order(key: str) -> tuple[float, int]:
    rate, _, steps = key.partition("/")
    return (float(rate), int(steps)) if steps else (0.0, 0)


def _rates(found: Mapping[str, Any]) -> list[str]:
    return sorted({key.split("/")[0] for key in found if "/" in key}, key=float)


def curve(found: Mapping[str, Any], rate: str, name: str = "s") -> list[tuple[float, float]]:
    """(steps, s or another figure) of one learning rate, from before the attack on."""
    at = [
        (float(key.split("/")[1]), f[name]["value"]) for key, f in found.items() if key.startswith(f"{rate}/")
    ]
    return [(0.0, found["released"][name]["value"]), *sorted(at)]


def steps_to(points: Sequence[tuple[float, float]], level: float) -> float:
    """Steps after which s first reaches `level`, linear between two looks; inf if it never does."""
    if points[0][1] >= level:
        return 0.0
    for (n0, s0), (n1, s1) in pairwise(points):
        if s0 < level <= s1:
            return n0 + (n1 - n0) * (level - s0) / (s1 - s0)
    return math.inf


def delay(found: Mapping[str, Any], none: Mapping[str, Any], rate: str) -> str | None:
    """How many times as many steps s = 0.5 takes as without protection: "2.1", or "> 4.0"."""
    if not any(key.startswith(f"{rate}/") for key in none):
        return None
    ours, plain = curve(found, rate), curve(none, rate)
    base = steps_to(plain, PAID)
    if not 0 < base < math.inf:
        return None
    needed = steps_to(ours, PAID)
    return f"{needed / base:.1f}" if needed < math.inf else f"> {ours[-1][0] / base:.1f}"


def draw(record: Mapping[str, Any], path: Path) -> None:
    """The curves and the frontiers, as pictures beside the results file."""
    summary = record["summary"]
    rates = sorted({rate for found in summary.values() for rate in _rates(found)}, key=float)
    for rate in rates:
        rows = {row: found for row, found in summary.items() if rate in _rates(found)}
        panels = {"s": {row: curve(found, rate) for row, found in rows.items()}}
        shown = {row: curve(found, rate, "protective") for row, found in rows.items() if _has_output(found)}
        if shown:
            panels["share of images with the output"] = shown
        picture = path.with_name(f"{NAME}-{rate}.png")
        curves(picture, panels, x="steps of DreamBooth", y="", limits=(-0.2, 1.05))
    points = frontier(summary)
    if points:
        curves(
            path.with_name(f"{NAME}-frontier.png"),
            {
                "what the released model knows": {k: [(x, s)] for k, (x, s, _) in points.items()},
                "what is left to others": {k: [(x, o)] for k, (x, _, o) in points.items()},
            },
            x=f"share of the output after {USUAL} steps", y="s", limits=(-0.2, 1.05),
        )  # fmt: skip


def frontier(summary: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """By row with a protective output: its share at the training prompt after the usual attack, s of the
    released model, and s of the unprotected."""
    points = {}
    for row, found in summary.items():
        at = found.get(f"{min(_rates(found), key=float)}/{USUAL}") if _rates(found) else None
        if at is not None and "protective" in at and "unprotected" in found:
            points[row] = (
                at["protective"]["value"], found["released"]["s"]["value"],
                found["unprotected"]["s"]["value"],
            )  # fmt: skip
    return points


def _has_output(found: Mapping[str, Any]) -> bool:
    return "protective" in found["released"]


def render(record: Mapping[str, Any]) -> str:
    """The tables of the notes."""
    summary = record["summary"]
    rates = sorted({rate for found in summary.values() for rate in _rates(found)}, key=float)
    tables = []
    for rate in rates:
        steps = sorted(
            {int(k.split("/")[1]) for f in summary.values() for k in f if k.startswith(f"{rate}/")}
        )
        rows = []
        for row, found in summary.items():
            if rate not in _rates(found):
                continue
            at = [found.get(f"{rate}/{n}") for n in steps]
            rows.append([
                row, f"{found['released']['s']['value']:.2f}",
                *(None if f is None else common.interval(f["s"]) for f in at),
                found.get("cost", {}).get(rate), found["released"]["subjects"],
            ])  # fmt: skip
            if _has_output(found):
                rows.append([
                    f"{row}: protective output", _both(found["released"]),
                    *(None if f is None else _both(f) for f in at), None, found["released"]["subjects"],
                ])  # fmt: skip
        head = ["model", "released", *(f"{n} steps" for n in steps), "times the steps", "subjects"]
        tables += [f"DreamBooth at a learning rate of {rate}:", common.table(head, rows)]
    pulls = [
        [
            row, *(f"{found['released'][name]['value']:.3f}" for name in _PULLS),
            common.interval(found["unprotected"]["s"]),
            _both(found["unprotected"]) if "protective" in found["unprotected"] else None,
            found["released"]["subjects"],
        ]
        for row, found in summary.items()
        if "unprotected" in found
    ]  # fmt: skip
    head = ["model", "pull of the subject", "its noise", "pull of another", "its noise", "s of another",
            "output, another", "subjects"]  # fmt: skip
    return "\n\n".join([
        *tables,
        "s, and below it the share of pictures with the protective output, at the training prompt / in new "
        f"contexts. Times the steps: until s = {PAID}, over those without protection.",
        common.table(head, pulls),
        "Norm of the mean gradient of the personalization loss in the released model, and the standard "
        "deviation of one sample's; s of an unprotected subject of the class, and the share "
        f"of its pictures with the protective output, after {USUAL} steps. Seed {record['about']['seed']}. "
        "Intervals: 95 %, bootstrap over subjects and pictures.",
        *common.made_on(record["cells"]),
    ])  # fmt: skip


_PULLS = ("pull_subject", "noise_subject", "pull_other", "noise_other")


def _both(f: Mapping[str, Any]) -> str:
    return f"{f['protective']['value']:.0%} / {f['protective_new_context']['value']:.0%}"


if __name__ == "__main__":
    common.main(cli)
