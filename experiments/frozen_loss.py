"""Does a protection raise the loss of a model that is not trained at all, after JPEG and elsewhere too?

    python -m experiments.frozen_loss
    python -m experiments.frozen_loss --other FOLDER     another model beside, which no protection has seen

Per subject, the frozen model's mean diffusion loss on its protected pictures over that on the clean ones, at
the same t and ε: as published, after JPEG 75, and resized to half and back (both pictures each time). It
costs no training, so it has more subjects than `benchmarks.protection`, which trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.judging import TRAINING
from benchmarks.protection import CODE, protect, tagged, visibility
from torch import Tensor

from benchmarks import common
from experiments.rows import config
from unlikeness import purify
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import unseen

NAME = "frozen_loss"
_CONFIG = config(NAME)
BUDGETS: tuple[int, ...] = tuple(_CONFIG["budgets"])
KINDS: dict[str, dict[str, object]] = _CONFIG["methods"]
WAYS: dict[str, dict[str, object] | None] = _CONFIG["purifiers"]
LEVELS, DRAWS = 20, 2


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=12, help="unseen subjects, the class nouns in turn")
    parser.add_argument("--other", default=None, metavar="FOLDER", help="a model that no protection has seen")
    args = parser.parse_args(argv)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    other = None
    if args.other:
        other = TextToImage.from_pretrained(args.other, device=args.device, dtype="float32")
    about = {
        "model": common.model_name(args.model),
        "weights": common.model_digest(model),
        "other": None if other is None else common.model_digest(other),
        "levels": LEVELS, "draws": DRAWS, "seed": args.seed, "quick": args.quick,
    }  # fmt: skip
    results = common.Results(
        common.results_file(NAME, args, common.EXPERIMENTS), NAME, about, fresh=args.fresh, keep=args.keep,
        code=common.code_digest(*CODE, "src/unlikeness/purify"),
    )  # fmt: skip
    measure(model, other, results, args.seed, 1 if args.quick else args.subjects, quick=args.quick)
    print(render(results.record))


def measure(
    model: TextToImage,
    other: TextToImage | None,
    results: common.Results,
    seed: int,
    count: int,
    *,
    quick: bool,
) -> None:
    """Fill the cells that are missing, subject by subject, and sum up."""
    cast = unseen(count, seed)
    look = _Look(model, other, seed, 2 if quick else LEVELS)
    for who in cast:
        clean = who.subject(TRAINING)
        prefix = f"{who.class_noun}-{who.seed}"
        base = results.cell(f"{prefix}/clean", partial(look, clean.images, clean.class_prompt))
        for budget in BUDGETS[1:2] if quick else BUDGETS:
            for kind, settings in KINDS.items():
                values: dict[str, object] = {**settings, "budget": float(budget)}
                method = str(values.pop("method"))
                if quick and method in ("advdm", "photoguard"):
                    values["steps"] = 2
                key = f"{prefix}/{tagged(method)}/{kind}/{budget}"
                results.cell(key, partial(_cell, look, clean, method, values, seed + who.seed, base))
        results.finish(summarize(results, [f"{m.class_noun}-{m.seed}" for m in cast], seed))


@dataclass(frozen=True)
class _Look:
    """The losses of pictures [N, 3, H, W], by way."""

    model: TextToImage
    other: TextToImage | None
    seed: int
    levels: int

    def __call__(self, images: Tensor, prompt: str) -> dict[str, float]:
        found = {}
        for way, purifier in WAYS.items():
            seen = images
            if purifier is not None:
                settings = {name: value for name, value in purifier.items() if name != "name"}
                made = purify.create(str(purifier["name"]), settings=settings)
                seen = made.purify(images, range(len(images)))
            found[way] = self._loss(self.model, seen, prompt)
        if self.other is not None:
            found["another model"] = self._loss(self.other, images, prompt)
        return found

    def _loss(self, model: TextToImage, images: Tensor, prompt: str) -> float:
        return mean_loss_over_levels(model, images, prompt, seed=self.seed, levels=self.levels, draws=DRAWS)


def _cell(
    look: _Look,
    clean: Subject,
    method: str,
    values: Mapping[str, object],
    offset: int,
    base: Mapping[str, float],
) -> dict[str, Any]:
    """Protect, and look."""
    images = protect(look.model, clean.images, method, values, offset)
    losses = look(images, clean.class_prompt)
    raised = {way: loss / base[way] for way, loss in losses.items()}
    return {"raised": raised, **visibility(clean.images, images)}


def summarize(results: common.Results, names: Sequence[str], seed: int) -> dict[str, Any]:
    """Per kind and budget: the ratio's mean over the subjects that have it, with its interval, per way."""
    summary: dict[str, Any] = {}
    for kind, settings in KINDS.items():
        for budget in BUDGETS:
            keys = [f"{name}/{tagged(str(settings['method']))}/{kind}/{budget}" for name in names]
            cells = [results.cells[key] for key in keys if key in results.cells]
            if not cells:
                continue
            raised = {}
            for way in cells[0]["raised"]:
                found = bootstrap_mean([[cell["raised"][way]] for cell in cells], seed=seed)
                raised[way] = {"value": found.value, "low": found.low, "high": found.high}
            psnr = sum(cell["psnr"] for cell in cells) / len(cells)
            summary[f"{kind}/{budget}"] = {"raised": raised, "psnr": psnr, "subjects": len(cells)}
    return summary


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    summary = record["summary"]
    ways = list(next(iter(summary.values()), {"raised": {}})["raised"])
    rows = []
    for key, figures in sorted(summary.items(), key=lambda item: int(item[0].rpartition("/")[2])):
        kind, _, budget = key.rpartition("/")
        ratios = [common.interval(figures["raised"][way]) for way in ways]
        rows.append([kind, budget, *ratios, f"{figures['psnr']:.1f}"])
    count = max((figures["subjects"] for figures in summary.values()), default=0)
    about = record["about"]
    draws = f"{about['levels']} noise levels × {about['draws']} draws"
    return "\n\n".join([
        common.table(["protection", "budget [n/255]", *ways, "PSNR [dB]"], rows),
        f"The frozen model's diffusion loss over that on clean pictures that went the same way: "
        f"{count} subjects, {TRAINING} pictures each, {draws}, "
        f"seed {about['seed']}. Intervals: 95 %, bootstrap over subjects.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
