"""How class images change during an immunization: the preference against the naive loss (APDM's Figure 4).

    python -m experiments.drift_curve

Per row (a method and its settings, `experiments.immunizing`) and unseen subject: one immunization, stopped
after 25, 50, 100, 200 and 400 outer steps, and each time the FID of class pictures against renders of the
class, over the original's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.judging import TRAINING

from benchmarks import common, personalization
from experiments.immunization import CODE, Bench
from experiments.immunizing import captions, opened
from experiments.plotting import curves
from experiments.rows import ROWS, SCALE, rows_of
from unlikeness import immunize
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.immunize.data import class_settings
from unlikeness.toybox.cast import Member, unseen

NAME = "drift_curve"
STEPS = (25, 50, 100, 200, 400)
MAIN = ("apdm-no-l2p", "adversarial", "apdm")


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=2, help="unseen subjects, the class nouns in turn")
    parser.add_argument("--rows", default=",".join(MAIN))
    parser.add_argument("--steps", default=",".join(map(str, STEPS)), help="at which pictures are drawn")
    args = parser.parse_args(argv)
    rows = rows_of(args.rows, original=False)
    for row in rows:
        made = immunize.create(ROWS[row][0], {**SCALE, **ROWS[row][1]}).settings
        if made.fall or made.attack_depth:
            raise UsageError(
                f"--rows {row} cannot be stopped on the way: its end depends on its length"
            )
    model, judge, results = opened(NAME, args, CODE)
    steps = (1, 2) if args.quick else sorted(int(text) for text in args.steps.split(","))
    curve = Curve(model, Bench(model, judge, results, args.seed, quick=args.quick), steps)
    for who in unseen(1 if args.quick else args.subjects, args.seed):
        for row in rows:
            curve.measure(row, who)
        results.finish(sum_up(results), device=model.device)
    draw(results.record, results.path.with_suffix(".png"))
    print(render(results.record))


@dataclass
class Curve:
    """One immunization in pieces, each of which ends with class pictures."""

    model: TextToImage
    bench: Bench
    steps: Sequence[int]

    def measure(self, row: str, who: Member) -> None:
        """Fill this row's missing cells of one subject."""
        results, key = self.bench.results, f"{row}/{personalization.key_of(who)}"
        if all(f"{key}/{n}" in results.cells for n in self.steps):
            return
        state = results.work / "curve" / f"{key.replace('/', '-')}.safetensors"
        state.parent.mkdir(parents=True, exist_ok=True)
        for n in self.steps:
            if f"{key}/{n}" in results.cells:
                continue  # the next piece goes on from its state, or trains these steps too
            method, further = ROWS[row]
            values = {**SCALE, **further, "outer_steps": n}
            if self.bench.quick:
                values |= {"inner_steps": 1, "class_images": 5, "class_steps": 2}
            made = immunize.create(method, values)
            prior = self.bench.maker.priors.of(who.class_noun, class_settings(made.settings))
            assert prior is not None
            try:
                released = immunize.immunize(
                    self.model, [who.subject(TRAINING)], made, prompts=captions(),
                    general=self.bench.maker.general(), priors={who.class_noun: prior}, checkpoint=state,
                )  # fmt: skip
            except UsageError:
                raise
            except UnlikenessError as error:  # it diverged, and so it will further on
                print(f"{key}/{n}: {error}")
                break
            torch.nn.Module.half(released.denoiser)
            torch.nn.Module.float(released.denoiser)  # as it would be published
            self.bench.results.cell(
                f"{key}/{n}",
                lambda released=released: self.bench.quality(released, who),  # type: ignore[misc]
            )
        state.unlink(missing_ok=True)


def sum_up(results: common.Results) -> dict[str, Any]:
    """Per row and number of steps: the mean of FID over the original's, less 1, and of recall."""
    summary: dict[str, Any] = {}
    for key, cell in results.cells.items():
        row, _, steps = key.split("/")
        found = summary.setdefault(row, {}).setdefault(steps, {"drift": [], "recall": []})
        found["drift"].append(cell["fid"] / cell["fid_original"] - 1)
        found["recall"].append(cell["recall"])
    return {
        row: {
            steps: {name: sum(v) / len(v) for name, v in f.items()} | {"subjects": len(f["drift"])}
            for steps, f in sorted(found.items(), key=lambda item: int(item[0]))
        }
        for row, found in summary.items()
    }


def draw(record: Mapping[str, Any], path: Any) -> None:
    """Drift against outer steps."""
    lines = {
        row: [(0.0, 0.0), *((int(n), 100 * f["drift"]) for n, f in found.items())]
        for row, found in record["summary"].items()
    }
    curves(path, {"FID of class pictures": lines}, x="outer steps", y="drift, %", dashed=("adversarial",))


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    summary = record["summary"]
    steps = sorted({int(n) for found in summary.values() for n in found})
    rows = []
    for row, found in summary.items():
        at = [found.get(str(n)) for n in steps]
        rows.append([
            row,
            *(None if f is None else f"{f['drift']:+.0%}, {f['recall']:.2f}" for f in at),
            max(f["subjects"] for f in found.values()),
        ])  # fmt: skip
    return "\n\n".join([
        common.table(["model", *(f"{n} steps" for n in steps), "subjects"], rows),
        "FID of class pictures against renders, over the original's own, less 1; recall. Seed "
        f"{record['about']['seed']}.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
