"""What is a protection worth, and how visible is it? Noise, AdvDM, PhotoGuard, ASPL, RID at 4, 8, 16/255.

    python -m benchmarks.protection
    python -m benchmarks.protection --subjects 3 --methods noise,advdm --budgets 8

Per subject: the frozen model's diffusion loss on the clean and the protected pictures, at the same t and ε;
s after DreamBooth on either; L∞, PSNR and SSIM of the protected pictures at eight bits. DreamBooth's settings
are those that `benchmarks.personalization` chose, unless --use says others; ASPL's surrogate learns at the
same rate. A row of the table is over all subjects that the file has it of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks import attacking, common, personalization
from benchmarks.judging import TRAINING, Counts, Judge, summarize, toybox_judge
from benchmarks.publishing import QUICK, mean_psnr, protect, published, settings_type, tagged, visibility
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.loss import DRAWS
from unlikeness.diffusion.loss import mean_loss_over_levels as frozen_loss
from unlikeness.errors import UsageError
from unlikeness.gallery import grid
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.settings import build
from unlikeness.toybox.cast import Member, unseen

__all__ = ["CODE", "protect", "tagged", "visibility"]

NAME = "protection"
CODE = (*attacking.CODE, "src/unlikeness/protect")

METHODS = ("noise", "advdm", "photoguard", "aspl", "rid")
BUDGETS = (4, 8, 16)


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=12, help="unseen subjects, the class nouns in turn")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="n/255, whole numbers")
    parser.add_argument("--use", default="", metavar="NAME=VALUE,...", help="DreamBooth's settings")
    args = parser.parse_args(argv)
    methods, budgets = asked(args.methods, args.budgets)
    counts = Counts.few() if args.quick else Counts()
    judge, judges = toybox_judge(counts)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    base = attacking.QUICK_COMMON if args.quick else attacking.COMMON
    about = personalization.about(model, args, judges, counts)
    row = {"steps": 2} if args.quick else dreambooth_settings(args.use, about["weights"])
    settings = attacking.full_settings("dreambooth", {**base, **row})
    results = common.Results(
        common.results_file(NAME, args), NAME, {**about, "dreambooth": settings},
        fresh=args.fresh, code=common.code_digest(*CODE), keep=args.keep,
    )  # fmt: skip
    measure(
        model, judge, results, settings,
        cast=unseen(min(args.subjects, 1) if args.quick else args.subjects, args.seed),
        methods=methods, budgets=budgets[:1] if args.quick else budgets,
        seed=args.seed, further=QUICK if args.quick else {},
    )  # fmt: skip
    print(render(results.record))


def asked(methods: str, budgets: str) -> tuple[list[str], list[int]]:
    """Parse --methods and --budgets. UsageError for an unknown one, before any training."""
    try:
        numbers = [int(text) for text in budgets.split(",")]
    except ValueError as error:
        raise UsageError(f"--budgets {budgets} must be whole numbers separated by commas") from error
    names = [name.strip() for name in methods.split(",")]
    for name in names:
        for number in numbers:
            build(settings_type(name), {"budget": float(number)})
    return names, numbers


def dreambooth_settings(use: str, weights: str) -> dict[str, Any]:
    """The settings of --use, or what the personalization benchmark chose for these weights; UsageError for
    neither."""
    return dict(common.parse_settings(use)) if use else chosen("dreambooth", weights)


def chosen(method: str, weights: str) -> dict[str, Any]:
    """What the personalization benchmark chose for these weights. UsageError if it has not."""
    path = common.RESULTS / f"{personalization.NAME}.json"
    record = common.load(path) if path.exists() else {"about": {}, "summary": {}}
    found = record["summary"].get("test", {})
    if method not in found:
        raise UsageError(f"no {method} setting is chosen yet: run benchmarks.personalization, or give --use")
    if record["about"].get("weights") != weights:
        raise UsageError(f"{path} chose settings for other weights; run it again, or give --use")
    row: dict[str, Any] = found[method]["chosen"]
    return row


def measure(
    model: TextToImage,
    judge: Judge,
    results: common.Results,
    settings: Mapping[str, Any],
    *,
    cast: Sequence[Member],
    methods: Sequence[str],
    budgets: Sequence[int],
    seed: int,
    further: Mapping[str, Any],
) -> None:
    """Fill the missing cells, subject by subject."""
    priors = attacking.Priors(model)
    names = [tagged(method) for method in methods]
    ways = ["clean", *(f"{name}/{budget}" for budget in budgets for name in names)]
    for who in cast:
        for way in ways:

            def compute(who: Member = who, way: str = way) -> dict[str, Any]:
                clean = who.subject(TRAINING)
                pictures = clean.images
                if way != "clean":
                    name, _, budget = way.partition("/")
                    pictures = published(
                        model, clean, name.partition("@")[0], float(budget), seed + who.seed,
                        priors=priors, attack=settings, further=further,
                    )  # fmt: skip
                seen = replace(clean, images=pictures)
                name = f"{personalization.key_of(who)}_{way.replace('/', '-')}"
                checkpoint = results.work / f"{name}.safetensors"
                tuned = attacking.attack(
                    model, seen, "dreambooth", settings, priors=priors, checkpoint=checkpoint
                )
                figures, drawn = judge.look(tuned, who, clean, seed)
                strip = results.work / "pictures" / f"{name}.png"
                strip.parent.mkdir(parents=True, exist_ok=True)
                small = torch.nn.functional.interpolate(pictures, drawn.shape[-2:])
                grid(torch.cat([small, drawn[:TRAINING]]), columns=TRAINING).save(strip)
                levels = judge.counts.levels
                loss = frozen_loss(model, pictures, clean.class_prompt, seed=seed, levels=levels)
                # The clean pictures come first.
                clean_cell = results.cells.get(f"{personalization.key_of(who)}/clean")
                return {
                    **figures,
                    "loss": loss,
                    "loss_clean": loss if clean_cell is None else clean_cell["loss"],
                    **visibility(clean.images, pictures),
                }

            results.cell(f"{personalization.key_of(who)}/{way}", compute)
        results.finish(table_of(results.cells, seed=seed), device=model.device)


def table_of(cells: Mapping[str, common.Cell], *, seed: int) -> dict[str, Any]:
    """The summary: each way over all subjects that have it, of the weights and code that are in use now."""
    names = {key.split("/")[1] for key in cells}
    current = {name for name in names if tagged(name.partition("@")[0]) == name}
    rows: dict[str, list[str]] = {}
    for key in sorted(cells, key=number):
        _, _, way = key.partition("/")
        if way.partition("/")[0] in current:
            rows.setdefault(way, []).append(key)
    return {way: sum_up([cells[key] for key in rows[way]], seed=seed) for way in sorted(rows, key=place)}


def number(key: str) -> int:
    """A subject's place in the cast, from the key of one of its cells: CLASS-NUMBER/way."""
    return int(key.partition("/")[0].rpartition("-")[2])


def place(way: str) -> tuple[int, int, str]:
    """A way's place in the table: clean pictures first, then by budget."""
    name, _, budget = way.partition("/")
    method = name.partition("@")[0]
    return int(budget or -1), METHODS.index(method) if method in METHODS else len(METHODS), method


def sum_up(cells: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """Means over subjects of one way."""
    ratio = bootstrap_mean([[cell["loss"] / cell["loss_clean"]] for cell in cells], seed=seed)
    return {
        **summarize(cells, seed=seed),
        "loss": float(np.mean([cell["loss"] for cell in cells])),
        "loss_ratio": {"value": ratio.value, "low": ratio.low, "high": ratio.high},
        "linf": max(cell["linf"] for cell in cells),
        "psnr": mean_psnr(cells),
        "ssim": float(np.mean([cell["ssim"] for cell in cells])),
    }


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    head = ["method", "budget [n/255]", "diffusion loss", "of the clean one", "s after DreamBooth",
            "L∞ [n/255]", "PSNR [dB]", "SSIM", "subjects"]  # fmt: skip
    rows = []
    for way, f in record["summary"].items():
        method, _, budget = way.partition("/")
        rows.append([
            method.partition("@")[0], budget or "0", f"{f['loss']:.4f}", common.interval(f["loss_ratio"]),
            common.interval(f["s"]), f"{f['linf']:.1f}",
            None if f["psnr"] is None else f"{f['psnr']:.1f}", f"{f['ssim']:.3f}",
            f["subjects"],
        ])  # fmt: skip
    each = next((f["pictures"] // f["subjects"] for f in record["summary"].values()), 0)
    settings = record["about"]["dreambooth"]
    return "\n\n".join([
        common.table(head, rows),
        f"A row is over the first so many unseen subjects, with {TRAINING} training pictures and {each} "
        f"generated each, seed {record['about']['seed']}; DreamBooth with {settings['steps']} steps of "
        f"{settings['batch_size']} at {settings['learning_rate']:g}. Loss over "
        f"{record['about']['counts']['levels']} noise levels × {DRAWS} draws, the same for "
        "clean and protected pictures. Intervals: 95 %, bootstrap.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
