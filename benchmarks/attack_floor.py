"""How much of an attack's s comes from the model, and how much from the pictures alone?

    python -m benchmarks.attack_floor
    python -m benchmarks.attack_floor --rates 5e-5 --times 4
    python -m benchmarks.attack_floor --method lora --rates 3e-4,1e-3,3e-3

DreamBooth (or a LoRA of rank 32) runs at several learning rates and lengths, on the model and on a copy with
random weights in the U-Net. What it gets out of the copy it learns from the pictures alone: changing a
model's weights cannot go below that. The subjects are those on which DreamBooth's settings were tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks import attacking, common, personalization
from benchmarks.judging import TRAINING, Counts, summarize, toybox_judge
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.toybox.cast import Member, unseen
from unlikeness.toybox.recipes.model import new_unet

NAME = "attack_floor"
CODE = attacking.CODE
RATES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4)
STEPS = 400
MODELS = ("trained", "random")
METHODS: dict[str, dict[str, Any]] = {"dreambooth": {}, "lora": {"rank": 32}}


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--rates", default=",".join(f"{rate:g}" for rate in RATES))
    parser.add_argument("--times", type=int, default=1, help=f"so many times {STEPS} steps")
    parser.add_argument("--method", default="dreambooth", choices=tuple(METHODS))
    parser.add_argument("--models", default=",".join(MODELS))
    args = parser.parse_args(argv)
    counts = Counts.few() if args.quick else Counts()
    judge, judges = toybox_judge(counts)
    trained = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    about = {**personalization.about(trained, args, judges, counts), "steps": 2 if args.quick else STEPS}
    results = common.Results(
        common.results_file(NAME, args), NAME, about,
        fresh=args.fresh, keep=args.keep, code=common.code_digest(*CODE),
    )  # fmt: skip
    models = {"trained": trained, "random": untrained(trained, args.seed)}
    if unknown := set(args.models.split(",")) - set(models):
        raise UsageError(f"--models {', '.join(sorted(unknown))}: there are {', '.join(MODELS)}")
    priors = {name: attacking.Priors(model) for name, model in models.items()}
    base = attacking.QUICK_COMMON if args.quick else attacking.COMMON
    cast = unseen(1 if args.quick else args.subjects, personalization.TUNING_SEED + args.seed)
    rates = [float(text) for text in args.rates.split(",")][: 1 if args.quick else None]
    summary: dict[str, Any] = dict(results.record["summary"])
    for rate in rates:
        further = METHODS[args.method]
        settings = {**base, **further, "learning_rate": rate, "steps": about["steps"] * args.times}
        at = f"{rate:g}" if args.times == 1 else f"{rate:g} x {args.times}"
        if args.method != "dreambooth":
            at = f"{args.method} {at}"
        for name in args.models.split(","):

            def compute(
                who: Member, name: str = name, settings: Mapping[str, Any] = settings, at: str = at
            ) -> dict[str, Any]:
                subject = who.subject(TRAINING)
                checkpoint = results.work / f"{name}-{at.replace(' ', '')}-{who.seed}.safetensors"
                tuned = attacking.attack(
                    models[name], subject, args.method, settings, priors=priors[name], checkpoint=checkpoint
                )
                return judge.look(tuned, who, subject, args.seed)[0]

            cells = [
                results.cell(f"{name}/{at}/{personalization.key_of(who)}", lambda who=who: compute(who))  # type: ignore[misc]
                for who in cast
            ]
            summary[f"{name}/{at}"] = summarize(cells, seed=args.seed)
            results.finish(summary, device=trained.device)
    print(render(results.record))


def untrained(model: TextToImage, seed: int) -> TextToImage:
    """The same autoencoder and text encoder around a U-Net with random weights."""
    copied = model.copy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copied.denoiser.load_state_dict(new_unet().state_dict())
    return copied.freeze()


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    summary = record["summary"]
    about = record["about"]
    rows = []
    for at in sorted({key.partition("/")[2] for key in summary}, key=_place):
        both = [summary.get(f"{name}/{at}") for name in MODELS]
        method, rate, times = _place(at)
        s = [None if f is None else common.interval(f["s"]) for f in both]
        subjects = max(f["subjects"] for f in both if f is not None)
        rows.append([method, f"{rate:g}", times * about["steps"], *s, subjects])
    head = ["attack", "learning rate", "steps", "s on the model", "s on random weights (floor)", "subjects"]
    return "\n\n".join([
        common.table(head, rows),
        f"Tuning subjects, {about['counts']['generated']} pictures of each, "
        f"steps of {about['common']['batch_size']} pictures, seed {about['seed']}. "
        "Intervals: 95 %, bootstrap.",
    ])  # fmt: skip


def _place(at: str) -> tuple[str, float, int]:
    """(method, learning rate, times the steps) of "5e-05", "5e-05 x 4" or "lora 0.003"."""
    what, _, times = at.partition(" x ")
    *method, rate = what.split()
    return method[0] if method else "dreambooth", float(rate), int(times or 1)


if __name__ == "__main__":
    common.main(cli)
