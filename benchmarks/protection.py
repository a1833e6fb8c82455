"""What is a protection worth, at which cost to the eye? Noise, AdvDM, PhotoGuard and RID at 4, 8, 16/255.

    python -m benchmarks.protection
    python -m benchmarks.protection --subjects 3 --methods noise,advdm --budgets 8

Per subject: the frozen model's diffusion loss on the clean and the protected pictures, at the same t and ε;
s after DreamBooth on either; L∞, PSNR and SSIM of the protected pictures at eight bits. DreamBooth's settings
are those that `benchmarks.personalization` chose, unless --use says others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import attacking, common, personalization
from benchmarks.judging import TRAINING, Counts, Judge, summarize, toybox_judge
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.loss import DRAWS
from unlikeness.diffusion.loss import mean_loss_over_levels as frozen_loss
from unlikeness.errors import UsageError
from unlikeness.gallery import grid
from unlikeness.measure.bootstrap import bootstrap_mean
from unlikeness.measure.visibility import linf, psnr, ssim
from unlikeness.protect import registry
from unlikeness.protect.rid.weights import load_protector
from unlikeness.settings import build
from unlikeness.toybox.cast import Member, unseen

NAME = "protection"
CODE = (
    *attacking.CODE,
    *(
        f"src/unlikeness/protect/{name}.py"
        for name in ("base", "advdm", "photoguard", "noise", "rng", "settings")
    ),
    "src/unlikeness/measure/visibility.py",
)
"""The code that decides the figures."""

METHODS = ("noise", "advdm", "photoguard", "rid")
BUDGETS = (4, 8, 16)


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=6, help="unseen subjects, the class nouns in turn")
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
        seed=args.seed, further={"steps": 2} if args.quick else {},
    )  # fmt: skip
    print(render(results.record))


def asked(methods: str, budgets: str) -> tuple[list[str], list[int]]:
    """--methods and --budgets. UsageError for what is no method or no budget, before anything is trained."""
    try:
        numbers = [int(text) for text in budgets.split(",")]
    except ValueError as error:
        raise UsageError(f"--budgets {budgets} must be whole numbers separated by commas") from error
    names = [name.strip() for name in methods.split(",")]
    for name in names:
        for number in numbers:
            build(registry.method(name).settings_type, {"budget": float(number)})
    return names, numbers


def dreambooth_settings(use: str, weights: str) -> dict[str, Any]:
    """--use, or what the personalization benchmark chose for these weights. UsageError for neither."""
    if use:
        return dict(common.parse_settings(use))
    path = common.RESULTS / f"{personalization.NAME}.json"
    record = common.load(path) if path.exists() else {"about": {}, "summary": {}}
    found = record["summary"].get("test", {})
    if "dreambooth" not in found:
        raise UsageError("no DreamBooth setting is chosen yet: run benchmarks.personalization, or give --use")
    if record["about"].get("weights") != weights:
        raise UsageError(f"{path} chose DreamBooth's settings for other weights; run it again, or give --use")
    chosen: dict[str, Any] = found["dreambooth"]["chosen"]
    return chosen


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
    """Fill the cells that are missing, subject by subject, so that what is done is always comparable."""
    priors = attacking.Priors(model)
    names = [tagged(method) for method in methods]
    ways = ["clean", *(f"{name}/{budget}" for budget in budgets for name in names)]
    for count, who in enumerate(cast, start=1):
        for way in ways:

            def compute(who: Member = who, way: str = way) -> dict[str, Any]:
                clean = who.subject(TRAINING)
                pictures = clean.images
                if way != "clean":
                    name, _, budget = way.partition("/")
                    method = name.partition("@")[0]
                    # What does not apply to a method (steps, to noise) is left out.
                    fields = registry.method(method).settings_type.__dataclass_fields__
                    fitting = {name: value for name, value in further.items() if name in fields}
                    wanted = {"budget": float(budget), **fitting}
                    pictures = protect(model, pictures, method, wanted, seed + who.seed)
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
        done = [personalization.key_of(member) for member in cast[:count]]
        # What an earlier run has measured of all these subjects stays in the table.
        current = {tagged(method) for method in METHODS}
        known = {key.partition("/")[2] for key in results.cells} | set(ways)
        known = {way for way in known if way.partition("/")[0] in {"clean", *current, *names}}
        shown = [way for way in known if all(f"{name}/{way}" in results.cells for name in done)]
        summary = {
            way: sum_up([results.cells[f"{name}/{way}"] for name in done], seed=seed)
            for way in sorted(shown, key=_place)
        }
        results.finish(summary, device=model.device)


def tagged(method: str) -> str:
    """A method's name in the results; a trained network's with a digest of its weights and its code."""
    if method != "rid":
        return method
    weights = load_protector().network.state_dict()
    code = (f"src/unlikeness/protect/rid/{name}.py" for name in ("network", "opening", "method"))
    digest = common.code_digest(*code)
    for name, value in weights.items():
        digest = hashlib.sha256(f"{digest}{name}".encode() + value.numpy().tobytes()).hexdigest()
    return f"rid@{digest[:8]}"


def _place(way: str) -> tuple[int, int, str]:
    """Where a way stands in the table: the clean pictures first, then by budget."""
    name, _, budget = way.partition("/")
    method = name.partition("@")[0]
    return int(budget or -1), METHODS.index(method) if method in METHODS else len(METHODS), method


def protect(
    model: TextToImage, images: Tensor, method: str, settings: Mapping[str, object], seed: int
) -> Tensor:
    """Protected pictures at eight bits, as a lossless file would hold them."""
    perturber = registry.create(method, model, settings)
    first = 4_000_000 + 10_000 * seed
    changed = perturber.perturb(images, range(first, first + len(images)))
    return (changed * 255).round() / 255


def visibility(clean: Tensor, changed: Tensor) -> dict[str, Any]:
    """The largest L∞ [n/255], and mean PSNR [dB] and SSIM over the pictures; PSNR None for no change."""
    same = torch.equal(clean, changed)
    return {
        "linf": float(linf(clean, changed).max()),
        "psnr": None if same else round(float(psnr(clean, changed).mean()), 3),
        "ssim": round(float(ssim(clean, changed).mean()), 5),
    }


def sum_up(cells: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """Means over subjects of one way."""
    ratio = bootstrap_mean([[cell["loss"] / cell["loss_clean"]] for cell in cells], seed=seed)
    return {
        **summarize(cells, seed=seed),
        "loss": float(np.mean([cell["loss"] for cell in cells])),
        "loss_ratio": {"value": ratio.value, "low": ratio.low, "high": ratio.high},
        "linf": max(cell["linf"] for cell in cells),
        "psnr": None if cells[0]["psnr"] is None else float(np.mean([cell["psnr"] for cell in cells])),
        "ssim": float(np.mean([cell["ssim"] for cell in cells])),
    }


def render(record: Mapping[str, Any]) -> str:
    """The table of docs/results.md."""
    head = ["method", "budget [n/255]", "diffusion loss", "of the clean one", "s after DreamBooth",
            "L∞ [n/255]", "PSNR [dB]", "SSIM"]  # fmt: skip
    rows = []
    for way, f in record["summary"].items():
        method, _, budget = way.partition("/")
        rows.append([
            method.partition("@")[0], budget or "0", f"{f['loss']:.4f}", common.interval(f["loss_ratio"]),
            common.interval(f["s"]), f"{f['linf']:.1f}",
            None if f["psnr"] is None else f"{f['psnr']:.1f}", f"{f['ssim']:.3f}",
        ])  # fmt: skip
    count = next(iter(record["summary"].values()), {"subjects": 0, "pictures": 0})
    settings = record["about"]["dreambooth"]
    return "\n\n".join([
        common.table(head, rows),
        f"{count['subjects']} subjects, {TRAINING} training pictures each, {count['pictures']} generated "
        f"a row, seed {record['about']['seed']}; DreamBooth with {settings['steps']} steps of "
        f"{settings['batch_size']} at {settings['learning_rate']:g}. Loss over "
        f"{record['about']['counts']['levels']} noise levels × {DRAWS} draws, the same for "
        "clean and protected pictures. Intervals: 95 %, bootstrap.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
