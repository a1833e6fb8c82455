"""Which terms of RID's loss work? Networks trained alike, except for the terms.

    python -m experiments.rid_ablation
    python -m experiments.rid_ablation --rows sds+regression,pull+visibility --steps 500 --attack 0

The paper's ablation has three losses: Adv-SDS, regression to gradient perturbations, and both. Ours adds the
latent's displacement, the pull to a grey picture's latent, and what an eye would see. All other settings are
the recipe's own, so that every row may spend the same energy. Each network meets subjects that no training
has seen: the frozen model's diffusion loss as in `experiments.frozen_loss`, visibility, and for some of the
subjects s after DreamBooth. A row is any terms joined by +, so that `--rows sds+visibility` is one too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.judging import TRAINING, Counts, Judge, summarize, toybox_judge
from benchmarks.publishing import mean_psnr, protect, visibility
from torch import Tensor

from benchmarks import attacking, common, personalization, protection
from experiments.frozen_loss import DRAWS, LEVELS
from experiments.rows import config
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.errors import UsageError
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.progress import Progress, on_stderr
from unlikeness.protect.rid.train.fit import train_protector
from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe
from unlikeness.settings import build
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import Member, unseen

NAME = "rid_ablation"
CODE = protection.CODE

_CONFIG = config(NAME)
TERMS: dict[str, float] = _CONFIG["terms"]
LABELS = {"sds": "Adv-SDS"}
ROWS: tuple[str, ...] = tuple(_CONFIG["combinations"])
BUDGETS: tuple[int, ...] = tuple(_CONFIG["budgets"])
ATTACKED: int = _CONFIG["attacked_at"]
"""The budget at which DreamBooth learns from the pictures [n/255]."""

QUICK = {"batch_size": 2, "renders": 4, "leaves": 4, "pairs": 2, "pair_steps": 1, "warmup": 0}


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"terms joined by +: {', '.join(TERMS)}")
    parser.add_argument("--steps", type=int, default=1_000, help="of each training, in the default batch")
    parser.add_argument("--subjects", type=int, default=12, help="unseen subjects, the class nouns in turn")
    parser.add_argument("--attack", type=int, default=4, metavar="K", help="DreamBooth for the first K")
    parser.add_argument("--use", default="", metavar="NAME=VALUE,...", help="DreamBooth's settings")
    args = parser.parse_args(argv)
    steps, subjects, attacked = args.steps, args.subjects, args.attack
    if args.quick:
        steps, subjects, attacked = 2, 1, min(args.attack, 1)
    recipes = {
        row: recipe(row, {"steps": steps, "seed": args.seed, **(QUICK if args.quick else {})})
        for row in asked(args.rows)
    }
    counts = Counts.few() if args.quick else Counts()
    judge, judges = toybox_judge(counts)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    about = personalization.about(model, args, judges, counts)
    row = {"steps": 2} if args.quick else protection.dreambooth_settings(args.use, about["weights"])
    settings = attacking.full_settings("dreambooth", {**about["common"], **row})
    about |= {"dreambooth": settings, "steps": steps, "levels": 2 if args.quick else LEVELS, "draws": DRAWS}
    results = common.Results(
        common.results_file(NAME, args, common.EXPERIMENTS), NAME, about,
        fresh=args.fresh, code=common.code_digest(*CODE), keep=args.keep,
    )  # fmt: skip
    with on_stderr() as progress:
        bench = Bench(model, judge, results, settings, args.seed, progress)
        bench.measure(recipes, unseen(subjects, args.seed), attacked)
    print(render(results.record))


def asked(rows: str) -> list[str]:
    """Parse --rows, each with its terms in our order. UsageError for an unknown term."""
    found = []
    for row in rows.split(","):
        terms = [term.strip() for term in row.split("+")]
        for term in terms:
            if term not in TERMS:
                raise UsageError(f"--rows {row.strip()}: {term} is no term; there are {', '.join(TERMS)}")
        found.append("+".join(term for term in TERMS if term in terms))
    return list(dict.fromkeys(found))


def recipe(row: str, further: Mapping[str, Any]) -> ProtectorRecipe:
    """How a row's network is trained. UsageError if its terms teach nothing."""
    weights = {f"{name}_weight": TERMS[name] if name in row.split("+") else 0.0 for name in TERMS}
    return build(ProtectorRecipe, {**weights, **further})


@dataclass(frozen=True)
class Bench:
    """Trains, evaluates and attacks. dreambooth: the attack's settings."""

    model: TextToImage
    judge: Judge
    results: common.Results
    dreambooth: Mapping[str, Any]
    seed: int
    progress: Progress | None = None

    def measure(self, recipes: Mapping[str, ProtectorRecipe], cast: Sequence[Member], attacked: int) -> None:
        """Fill the cells that are missing, row by row, and sum up; the first `attacked` meet DreamBooth."""
        for who in cast:  # first, so that there is a file, which a stopped training is found by
            self.results.cell(f"clean/{personalization.key_of(who)}", partial(self._clean, who))
        for row, made in recipes.items():
            trained = partial(self.weights, row, made)
            for who in cast:
                for budget in BUDGETS:
                    key = f"{row}/{personalization.key_of(who)}/{budget}"
                    self.results.cell(key, partial(self._frozen, trained, who, budget))
            for who in cast[:attacked]:
                key = f"{row}/{personalization.key_of(who)}/{ATTACKED}/dreambooth"
                self.results.cell(key, partial(self._attacked, trained, who, key))
            self.results.finish(table_of(self.results.cells, seed=self.seed), device=self.model.device)

    def weights(self, row: str, made: ProtectorRecipe) -> Path:
        """The file of a row's network, trained if it is missing; a stopped training continues.

        All rows learn from the same pictures and gradient perturbations, which are made once.
        """
        work = self.results.work / row
        file = work / "weights.safetensors"
        if not file.exists():
            work.mkdir(parents=True, exist_ok=True)
            for name in ("pictures", "pairs"):
                (self.results.work / name).mkdir(exist_ok=True)
                if not (work / name).exists():
                    (work / name).symlink_to(Path("..") / name, target_is_directory=True)
            names = [self.results.record["about"]["model"]]
            train_protector(made, [self.model], file, work=work, names=names, progress=self.progress)
            (work / CHECKPOINT).unlink()
        return file

    def _published(self, weights: Path, clean: Subject, budget: int) -> Tensor:
        settings = {"weights": str(weights), "budget": float(budget)}
        return protect(self.model, clean.images, "rid", settings, self.seed)

    def _loss(self, images: Tensor, prompt: str) -> float:
        levels, draws = (self.results.record["about"][name] for name in ("levels", "draws"))
        return mean_loss_over_levels(self.model, images, prompt, seed=self.seed, levels=levels, draws=draws)

    def _clean(self, who: Member) -> dict[str, Any]:
        clean = who.subject(TRAINING)
        return {"loss": self._loss(clean.images, clean.class_prompt)}

    def _frozen(self, trained: Callable[[], Path], who: Member, budget: int) -> dict[str, Any]:
        clean = who.subject(TRAINING)
        images = self._published(trained(), clean, budget)
        base = self.results.cells[f"clean/{personalization.key_of(who)}"]["loss"]
        return {"raised": self._loss(images, clean.class_prompt) / base, **visibility(clean.images, images)}

    def _attacked(self, trained: Callable[[], Path], who: Member, key: str) -> dict[str, Any]:
        clean = who.subject(TRAINING)
        seen = replace(clean, images=self._published(trained(), clean, ATTACKED))
        tuned = attacking.attack(
            self.model, seen, "dreambooth", self.dreambooth, priors=attacking.Priors(self.model),
            checkpoint=self.results.work / f"{key.replace('/', '_')}.safetensors",
        )  # fmt: skip
        return self.judge.look(tuned, who, clean, self.seed)[0]


def table_of(cells: Mapping[str, common.Cell], *, seed: int) -> dict[str, Any]:
    """The summary by row and budget, each over all subjects that have it; our rows come first."""
    ways: dict[tuple[str, str], list[common.Cell]] = {}
    for key, cell in cells.items():
        row, _, way = key.partition("/")
        if row != "clean":
            ways.setdefault((row, way.partition("/")[2]), []).append(cell)
    order = [*ROWS, *(row for row, _ in ways if row not in ROWS)]
    summary = {}
    for row, budget in ((row, str(budget)) for row in dict.fromkeys(order) for budget in BUDGETS):
        found, attacked = ways.get((row, budget), []), ways.get((row, f"{budget}/dreambooth"), [])
        if not found:
            continue
        raised = bootstrap_mean([[cell["raised"]] for cell in found], seed=seed)
        summary[f"{row}/{budget}"] = {
            "raised": {"value": raised.value, "low": raised.low, "high": raised.high},
            "psnr": mean_psnr(found),
            "ssim": float(np.mean([cell["ssim"] for cell in found])),
            "subjects": len(found),
            "attacked": summarize(attacked, seed=seed) if attacked else None,
        }
    return summary


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    head = ["terms", "budget [n/255]", "diffusion loss over the clean one", "PSNR [dB]", "SSIM", "subjects",
            "s after DreamBooth", "subjects"]  # fmt: skip
    rows = []
    for key, f in record["summary"].items():
        row, _, budget = key.partition("/")
        attacked = f["attacked"]
        rows.append([
            " + ".join(LABELS.get(term, term) for term in row.split("+")), budget,
            common.interval(f["raised"]), None if f["psnr"] is None else f"{f['psnr']:.1f}",
            f"{f['ssim']:.3f}", f["subjects"],
            *((None, None) if attacked is None else (common.interval(attacked["s"]), attacked["subjects"])),
        ])  # fmt: skip
    about = record["about"]
    weights = ", ".join(f"{LABELS.get(name, name)} {weight:g}" for name, weight in TERMS.items())
    settings = about["dreambooth"]
    return "\n\n".join([
        common.table(head, rows),
        f"{about['steps']} training steps each, with weights {weights}. The first so many unseen subjects, "
        f"{TRAINING} pictures each, seed {about['seed']}; loss over {about['levels']} noise levels × "
        f"{about['draws']} draws; DreamBooth with {settings['steps']} steps of {settings['batch_size']} at "
        f"{settings['learning_rate']:g}. Intervals: 95 %, bootstrap.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
