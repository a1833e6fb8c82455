"""Does each protection move what it aims at more than noise of the same energy does?

    python -m benchmarks.objectives
    python -m benchmarks.objectives --rows ace,caat --subjects 3

What a method raises is computed on unseen subjects' pictures, on noise (random signs) of the perturbation's
energy, and on the protected pictures, at draws of t and ε that the method did not use. For methods that
follow a learning model it is the diffusion loss of the frozen model under the same prompt, and of a
DreamBooth that learnt the clean pictures. Runs are shorter than the published ones; the settings are in the
results file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import common
from benchmarks.publishing import eight_bits
from unlikeness import personalize
from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.errors import UsageError
from unlikeness.measure.visibility import psnr
from unlikeness.protect import registry
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.published import preset_of
from unlikeness.seeds import picture_generators
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import unseen

NAME = "objectives"
CODE = ("src/unlikeness/protect", "benchmarks/objectives.py")

ROWS: dict[str, dict[str, object]] = {
    "advdm": {},
    "sds": {},
    "sds maximise": {"direction": "maximise"},
    "ace": {},
    "ace mist-loss": preset_of("ace", "mist-loss"),
    "photoguard": {},
    "dct": {},
    "universal": {},
    "aspl": {},
    "aspl fsmg": {**preset_of("aspl", "fsmg"), "clean_steps": 20, "pgd_steps": 20},
    "simac": {},
    "simac released": preset_of("simac", "released"),
    "metacloak": {},
    "caat": {},
}
"""Method and preset or setting -> settings."""

SHORT: dict[str, object] = {
    "budget": 8.0, "steps": 20, "rounds": 4, "clean_steps": 3, "perturbed_steps": 3, "pgd_steps": 5,
    "step_size": 1.0, "trials": 1, "train_steps": 4, "interval": 4, "advance": 2, "search_steps": 8,
    "learning_rate": 5e-4, "prior_weight": 0.0, "pictures": 8,
}  # fmt: skip
"""For settings of these names: a budget of 8/255, and runs for a CPU, with the toybox's learning rate."""

PICTURES = 2
DRAWS = 16
LEARNT = {"steps": 30, "learning_rate": 5e-4, "batch_size": 2, "prior_weight": 0.0}


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=2)
    parser.add_argument("--rows", default=",".join(ROWS))
    args = parser.parse_args(argv)
    rows = [name.strip() for name in args.rows.split(",")]
    if wrong := [name for name in rows if name not in ROWS]:
        raise UsageError(f"--rows {wrong[0]} is none of {', '.join(ROWS)}")
    quick: dict[str, object] = {"steps": 2, "rounds": 1, "pgd_steps": 1, "search_steps": 1, "pictures": 2}
    short = {**SHORT, **(quick if args.quick else {})}
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    about = {"weights": common.model_digest(model), "seed": args.seed, "settings": short, "rows": ROWS}
    results = common.Results(
        common.results_file(NAME, args), NAME, about,
        fresh=args.fresh, keep=args.keep, code=common.code_digest(*CODE),
    )  # fmt: skip
    cast = unseen(1 if args.quick else args.subjects, args.seed)
    for who in cast:
        subject = who.subject(PICTURES)
        for row in rows:
            results.cell(
                f"{row}/{who.class_noun}-{who.seed}",
                lambda subject=subject, row=row: measured(model, subject, row, short, args.seed),  # type: ignore[misc]
            )
    results.finish(summed(results.cells), device=model.device)
    print(render(results.record))


def measured(
    model: TextToImage, subject: Subject, row: str, short: Mapping[str, object], seed: int
) -> dict[str, Any]:
    """What the method raises on clean pictures, on noise of the same energy, and on the protected ones."""
    method = row.partition(" ")[0]
    names = registry.settings_type(method).__dataclass_fields__
    own = {"class_noun": subject.class_noun, "prompt": subject.class_prompt}
    given = {**short, **own, **ROWS[row]}
    made: Any = registry.create(method, model, {name: v for name, v in given.items() if name in names})
    images = subject.images
    result = eight_bits(made.perturb(images, [seed + i for i in range(len(images))]))
    energy = (result - images).square().mean((1, 2, 3), keepdim=True).sqrt()
    signs = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).sign()
    noise = eight_bits((images + signs * energy).clamp(0, 1))
    judges: dict[str, Callable[[Tensor], float]] = {}
    if isinstance(made, GradientProtection):
        judges["its own objective"] = lambda x: objective(made, x, images)
    else:
        tuned = personalize.personalize(model, subject, "dreambooth", LEARNT)
        judges["loss of the frozen model"] = lambda x: loss(model, x, made.prompt)
        judges["loss of a DreamBooth"] = lambda x: loss(tuned, x, made.prompt)
    return {
        "psnr": float(psnr(images, result).mean()),
        "noise_psnr": float(psnr(images, noise).mean()),
        "values": {
            name: [judge(images), judge(noise), judge(result)] for name, judge in judges.items()
        },
    }  # fmt: skip


@torch.no_grad()
def objective(made: GradientProtection[Any], images: Tensor, original: Tensor) -> float:
    """The mean of a method's objective over draws that it has not used."""
    made.begin(original)
    values = []
    for k in range(DRAWS):
        draws = picture_generators([7_000_000 + 100 * k + i for i in range(len(images))])
        values.append(float(made.objective(made.surrogates[0], images, draws).mean()))
    return float(np.mean(values))


@torch.no_grad()
def loss(model: TextToImage, images: Tensor, prompt: str) -> float:
    """The diffusion loss over evenly spaced t."""
    z0, c = model.encode_all(images).mean, model.condition([prompt])
    generator = torch.Generator().manual_seed(7_000_000)
    levels = torch.linspace(0, model.schedule.steps - 1, DRAWS).round().long()
    found = [diffusion_loss(model, z0, c, t=t.expand(len(z0)), generator=generator) for t in levels]
    return float(torch.stack(found).mean())


def summed(cells: Mapping[str, common.Cell]) -> dict[str, Any]:
    """By row and judge: the means over subjects, and on how many of them it is above noise."""
    found: dict[str, Any] = {}
    for row in dict.fromkeys(key.rpartition("/")[0] for key in cells):
        own = [cell for key, cell in cells.items() if key.rpartition("/")[0] == row]
        for judge in own[0]["values"]:
            each = np.array([cell["values"][judge] for cell in own])
            found[f"{row}/{judge}"] = {
                "values": each.mean(0).tolist(),
                "beats": int((each[:, 2] > each[:, 1]).sum()),
                "subjects": len(own),
                "psnr": float(np.mean([cell["psnr"] for cell in own])),
            }
    return found


def render(record: Mapping[str, Any]) -> str:
    """The table of the results page."""
    rows = []
    for key, f in record["summary"].items():
        row, _, judge = key.partition("/")
        clean, noise, after = (f"{value:.4f}" for value in f["values"])
        rows.append([
            f"`{row}`", judge, clean, noise, after, f"{f['beats']} of {f['subjects']}", f"{f['psnr']:.1f}"
        ])  # fmt: skip
    head = ["method", "what is raised", "clean", "noise", "protected", "beats noise", "PSNR [dB]"]
    about = record["about"]
    budget, seed = about["settings"]["budget"], about["seed"]
    return "\n\n".join([
        common.table(head, rows),
        f"The toybox's model, {PICTURES} pictures of each subject, budget {budget:g}/255, seed {seed}. "
        "Noise: random signs with the energy of the protection. A method that lowers something raises minus "
        "it.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
