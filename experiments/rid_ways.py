"""Larger pictures: is a perturbation better computed at the trainer's size or at the picture's own?

    python -m experiments.rid_ways
    python -m experiments.rid_ways --images FOLDER --results FILE     photographs instead of renders

Each way is `protect --at` on lossless files: `fit` finds the perturbation on a small copy and enlarges
it, `tiles` works at the picture's own size. Then the trainer's part: the protected picture, resized to the
model's side by an antialiased bicubic, as `personalize` does, and the frozen model's mean diffusion loss on
it, over that on the clean picture which went the same way. RID is measured on all subjects; AdvDM, which
costs a hundred times more, on fewer, with few steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from benchmarks.protection import visibility
from benchmarks.publishing import TOY, tagged
from PIL import Image
from torch import Tensor

from benchmarks import common
from experiments.rows import config
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.errors import UsageError
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.pictures import find_pictures
from unlikeness.protect import registry
from unlikeness.protect.base import Perturber
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.settings import ResolutionMode
from unlikeness.subjects import load_folder
from unlikeness.toybox.cast import Member, unseen
from unlikeness.toybox.world import sample_scene, to_images

NAME = "rid_ways"
BUDGET = 8.0
WAYS = {name: ResolutionMode(**way) for name, way in config(NAME)["ways"].items()}
LEVELS, DRAWS = 10, 2
CODE = ("src/unlikeness/protect", "src/unlikeness/diffusion")

_SCENES = 7_000_101


@dataclass(frozen=True)
class Plan:
    """What one method is measured on: subjects, pictures of each, and their sides [px]."""

    settings: Mapping[str, object]
    subjects: int
    pictures: int
    sizes: tuple[int, ...]


PLANS = {
    name: Plan(**{**plan, "sizes": tuple(plan["sizes"])}) for name, plan in config(NAME)["methods"].items()
}
QUICK = {
    "rid": Plan({"budget": BUDGET}, 1, 2, (128,)),
    "advdm": Plan({"budget": BUDGET, "steps": 1}, 1, 1, (128,)),
}


@dataclass(frozen=True)
class Motif:
    """A motif of pictures. `at`: (pictures, side [px]) -> [pictures, 3, side, side], at eight bits."""

    name: str
    prompt: str
    at: Callable[[int, int], Tensor]


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--images", type=Path, help="photographs of 256 px or more, instead of renders")
    args = parser.parse_args(argv)
    plans = QUICK if args.quick else PLANS
    count = plans["rid"].subjects
    motifs = photographs(args.images, count) if args.images else renders(count, args.seed)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    about = {
        "model": common.model_name(args.model),
        "weights": common.model_digest(model),
        "pictures": "photographs" if args.images else "renders",
        "subjects": min(count, len(motifs)),
        "levels": 2 if args.quick else LEVELS, "draws": DRAWS, "steps": plans["advdm"].settings["steps"],
        "seed": args.seed, "quick": args.quick,
    }  # fmt: skip
    results = common.Results(
        common.results_file(NAME, args, common.EXPERIMENTS), NAME, about, fresh=args.fresh, keep=args.keep,
        code=common.code_digest(*CODE),
    )  # fmt: skip
    if args.images:
        plans = {name: Plan(p.settings, p.subjects, 1, p.sizes) for name, p in plans.items()}
    measure(model, results, motifs, plans, args.seed, levels=about["levels"])
    print(render(results.record))


def renders(count: int, seed: int) -> list[Motif]:
    """Unseen subjects, each picture in another context."""

    def at(who: Member, pictures: int, side: int) -> Tensor:
        rng = np.random.default_rng((_SCENES, who.seed))
        contexts = who.contexts()[:pictures]
        return to_images(np.stack([sample_scene(rng, who.who, each).render(side) for each in contexts]))

    return [
        Motif(f"{who.class_noun}-{who.seed}", who.subject(1).class_prompt, partial(at, who))
        for who in unseen(count, seed)
    ]


def photographs(folder: Path, count: int) -> list[Motif]:
    """The first so many pictures below `folder`, by name, each a motif of its own with the one picture."""
    files = [file for _, file in find_pictures([folder])][:count]
    if not files:
        raise UsageError(f"--images {folder} holds no pictures; name a folder of photographs")

    def at(file: Path, pictures: int, side: int) -> Tensor:
        return (load_folder(file, size=side)[:pictures] * 255).round() / 255

    return [Motif(f"photograph-{i}", "a photo", partial(at, file)) for i, file in enumerate(files)]


def measure(
    model: TextToImage,
    results: common.Results,
    motifs: Sequence[Motif],
    plans: Mapping[str, Plan],
    seed: int,
    *,
    levels: int,
) -> None:
    """Fill the cells that are missing, motif by motif, and sum up."""
    look = partial(_loss, model, seed=seed, levels=levels)
    for method, plan in plans.items():
        own = {"weights": TOY} if method == "rid" else {}
        perturber = registry.create(method, model, {**own, **plan.settings})
        for motif in motifs[: plan.subjects]:
            for size in plan.sizes:
                start = f"{motif.name}/{size}/{plan.pictures}"
                clean = motif.at(plan.pictures, size)
                base = results.cell(f"{start}/clean", lambda c=clean, m=motif: {"loss": look(c, m.prompt)})  # type: ignore[misc]
                for way, scale in WAYS.items():
                    protect = partial(protected, clean, perturber, method, scale, seed)
                    compute = partial(_cell, clean, protect, partial(look, prompt=motif.prompt), base["loss"])
                    results.cell(f"{start}/{tagged(method)}/{way}", compute)
        results.finish(summarize(results, motifs, plans, seed), device=model.device)


def protected(images: Tensor, perturber: Perturber, method: str, scale: ResolutionMode, seed: int) -> Tensor:
    """Pictures [N, 3, H, W] as `unlikeness protect` would publish them, as PNG."""
    many = registry.method(method).needs_model and scale.mode == "tiles"
    with tempfile.TemporaryDirectory() as work:
        source, output = Path(work, "clean"), Path(work, "protected")
        source.mkdir()
        for i, pixels in enumerate((images * 255).round().byte().permute(0, 2, 3, 1).numpy()):
            Image.fromarray(pixels).save(source / f"{i}.png")
        outcome = protect_folder(
            [source], output, perturber, method=method, at=scale, seed=seed,
            batch_size=9 if many else len(images),
        )  # fmt: skip
        assert not outcome.skipped, outcome.skipped
        return load_folder(output, size=None)


def as_trained(images: Tensor, side: int) -> Tensor:
    """What `personalize` learns from: [N, 3, side, side]."""
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


def _loss(model: TextToImage, images: Tensor, prompt: str, *, seed: int, levels: int) -> float:
    seen = as_trained(images, model.resolution)
    return mean_loss_over_levels(model, seen, prompt, seed=seed, levels=levels, draws=DRAWS)


def _cell(
    clean: Tensor, protect: Callable[[], Tensor], look: Callable[[Tensor], float], base: float
) -> dict[str, Any]:
    images = protect()
    loss = look(images)
    return {"loss": loss, "raised": loss / base, **visibility(clean, images)}


def summarize(
    results: common.Results, motifs: Sequence[Motif], plans: Mapping[str, Plan], seed: int
) -> dict[str, Any]:
    """Per method, side and way: the ratio's mean over subjects with its interval, and the mean PSNR."""
    summary: dict[str, Any] = {}
    for method, plan in plans.items():
        names = [motif.name for motif in motifs[: plan.subjects]]
        for size in plan.sizes:
            for way in WAYS:
                keys = [f"{name}/{size}/{plan.pictures}/{tagged(method)}/{way}" for name in names]
                cells = [results.cells[key] for key in keys if key in results.cells]
                if not cells:
                    continue
                found = bootstrap_mean([[cell["raised"]] for cell in cells], seed=seed)
                summary[f"{method}/{size}/{way}"] = {
                    "raised": {"value": found.value, "low": found.low, "high": found.high},
                    "psnr": sum(cell["psnr"] for cell in cells) / len(cells),
                    "linf": max(cell["linf"] for cell in cells),
                    "subjects": len(cells), "pictures": plan.pictures,
                }  # fmt: skip
    return summary


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    rows = []
    for key, figures in record["summary"].items():
        method, size, way = key.split("/")
        rows.append([
            method, size, way, common.interval(figures["raised"]), f"{figures['psnr']:.1f}",
            f"{figures['subjects']} × {figures['pictures']}",
        ])  # fmt: skip
    about = record["about"]
    head = ["method", "side [px]", "perturbation made at", "loss over clean", "PSNR [dB]", "subjects"]
    return "\n\n".join([
        common.table(head, rows),
        f"{about['pictures'].capitalize()} at {BUDGET:g}/255, saved at eight bits, then resized as a trainer "
        f"does; the frozen model's diffusion loss over that on the clean pictures, {about['levels']} noise "
        f"levels × {about['draws']} draws, seed {about['seed']}; PSNR at full size; advdm with "
        f"{about['steps']} steps. Intervals: 95 %, bootstrap over subjects.",
        "The official network's `way` (`resize` is like the first of the three, `tiles` the last) is not "
        "measured, as its trained checkpoints were not there: its default, `resize`, is inferred from ours.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
