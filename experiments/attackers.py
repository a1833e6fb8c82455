"""Does every attacker learn a subject on the toybox? s after a short run of each, on one tuning subject.

    python -m experiments.attackers
    python -m experiments.attackers --only rid,dora --steps 400

"none" is the model before any attack. Rows of a preset have the preset's settings for the toybox, rows of a
method those of the preset toybox; in both the steps, and the number of class pictures, are cut to those of a
short run. It is a check that an attack works, not a comparison: one subject, few pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.attacking import CODE
from benchmarks.judging import TRAINING, Counts, toybox_judge
from benchmarks.personalization import TUNING_SEED

from benchmarks import common
from unlikeness.autoencoders import Posterior
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.personalize import create, known_as, names
from unlikeness.personalize.data import class_prior
from unlikeness.presets import ATTACKS, preset_values
from unlikeness.toybox.cast import member

NAME = "attackers"
COUNTS = Counts(generated=4, per_context=1, steps=12)
_SIDE = 64
"""Side of the toybox's pictures [px]."""


def rows() -> dict[str, tuple[str, dict[str, object]]]:
    """By name: a method, and its settings for the toybox."""
    own = {name: (name, preset_values("personalize", "toybox", _SIDE, name)) for name in names()}
    dora = {"dora": ("lora", {**own["lora"][1], "dora": True})}
    others = {
        one.name: (one.method, preset_values("personalize", one.name, _SIDE, one.method)) for one in ATTACKS
    }
    return {**own, **dora, **others}


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="names of rows, separated by commas")
    parser.add_argument("--steps", type=int, default=100, help="of each attack, at most")
    parser.add_argument("--class-images", type=int, default=0, help="class pictures, at most")
    args = parser.parse_args(argv)
    every = rows()
    wanted = args.only.split(",") if args.only else list(every)
    if unknown := [name for name in wanted if name not in every]:
        raise UsageError(f"--only {unknown[0]} is no row; there are {', '.join(every)}")
    counts = Counts.few() if args.quick else COUNTS
    judge, judges = toybox_judge(counts)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    about = {
        "model": common.model_name(args.model), "weights": common.model_digest(model), "judges": judges,
        "seed": args.seed, "quick": args.quick, "counts": asdict(counts), "steps": args.steps,
        "class_images": args.class_images,
    }  # fmt: skip
    results = common.Results(
        common.results_file(NAME, args, common.EXPERIMENTS), NAME, about, fresh=args.fresh, keep=args.keep,
        code=common.code_digest(*CODE),
    )  # fmt: skip
    who = member(TUNING_SEED + args.seed, "dog")
    subject = who.subject(TRAINING)
    drawn: dict[int, Posterior] = {}

    def cell(name: str) -> dict[str, Any]:
        if name == "none":
            return judge.look(model, who, subject, args.seed)[0]
        method, values = every[name]
        made = create(method, values)
        cut = {
            "steps": min(made.settings.steps, 2 if args.quick else args.steps),
            "class_images": min(made.settings.class_images, 2 if args.quick else args.class_images),
        }
        made = create(method, {**values, **cut})
        s, prior = made.settings, None
        if s.prior_weight and s.class_images:
            if s.class_images not in drawn:
                drawn[s.class_images] = class_prior(model, subject.class_prompt, s)
            prior = drawn[s.class_images]
        tuned = made.personalize(model, subject, prior=prior)
        figures, _ = judge.look(tuned, who, known_as(made, subject), args.seed)
        return {"settings": asdict(s), **figures}

    for name in ("none", *wanted):
        results.cell(name, partial(cell, name))
        results.finish({one: found["s"] for one, found in results.cells.items()}, device=model.device)
        print(name, results.cells[name]["s"], flush=True)
    print(render(results.record))


def render(record: Mapping[str, Any]) -> str:
    """The table."""
    lines = []
    for name, (method, _) in {"none": ("–", {}), **rows()}.items():
        if name in record["cells"]:
            found = record["cells"][name]
            s = found.get("settings", {})
            lines.append([
                name, method, s.get("steps", 0), f"{s['learning_rate']:g}" if s else "–",
                f"{found['s']:.2f}", f"{found['s_new_context']:.2f}",
            ])  # fmt: skip
    return common.table(
        ["attacker", "method", "steps", "learning rate", "s", "s in new contexts"], lines
    )


if __name__ == "__main__":
    common.main(cli)
