"""Where does the drift of a class come from? Guided images with one half of the predictions immunized.

    python -m experiments.drift_parts --rows target-bystanders --subjects 3 --skip 2

A guided prediction is u f(c) + (1 − u) f(∅) (Ho & Salimans 2022, Eq. 6). Per row (a method and its settings,
`experiments.immunizing`) and unseen subject: the FID of class pictures, drawn without any attack, against
renders of the class, where both halves are the original's, where f(c) alone is the immunized model's, where
f(∅) alone is, and where both are; and how far each half's answers have moved on class pictures of the
original, ‖f_θ − f_φ‖² in the mean over noise levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import common, personalization
from experiments.immunization import CODE, Bench
from experiments.immunizing import opened
from experiments.rows import rows_of
from unlikeness.diffusion import Condition, TextToImage, draw
from unlikeness.diffusion.families.stable_diffusion import StableDiffusion
from unlikeness.measure import frechet_distance
from unlikeness.subjects import with_article
from unlikeness.toybox.cast import Member, unseen

NAME = "drift_parts"
MAIN = ("target-bystanders", "target-held")
DRAWN = ("original", "words", "without words", "both")
"""Which half of the guided prediction is the immunized model's."""
HEAD = ("neither", "f(c)", "f(∅)", "both", "f(c) moved", "f(∅) moved")
MOVED = ("moved_words", "moved_without")


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=2, help="unseen subjects, the class nouns in turn")
    parser.add_argument("--skip", type=int, default=0, help="of these the first so many")
    parser.add_argument("--rows", default=",".join(MAIN))
    args = parser.parse_args(argv)
    rows = rows_of(args.rows, original=False)
    model, judge, results = opened(NAME, args, CODE)
    bench = Bench(model, judge, results, args.seed, quick=args.quick)
    for who in unseen(1 if args.quick else args.subjects, args.seed)[args.skip :]:
        for row in rows:
            key = f"{row}/{personalization.key_of(who)}/parts"
            if key not in results.cells:
                released = bench.maker.released(row, who)
                results.cell(key, lambda of=released, who=who: parts(bench, of, who))  # type: ignore[misc]
        results.finish(sum_up(results), device=model.device)
    print(render(results.record))


@dataclass(frozen=True)
class Halves(StableDiffusion):
    """One U-Net is asked without words and another with words, in a batch that has first the rows without and
    then as many with, as guidance makes it."""

    without: Any
    words: Any

    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        half = len(z_t) // 2
        halves = zip(z_t.chunk(2), t.chunk(2), (condition[:half], condition[half:]), strict=True)
        ask = super().predict
        return torch.cat([ask(u, *half) for u, half in zip((self.without, self.words), halves, strict=True)])


def parts(bench: Bench, released: TextToImage, who: Member) -> dict[str, Any]:
    """The class, drawn in all four ways."""
    original, noun = bench.model, who.class_noun
    before, mixed = bench.before(noun), original.copy()
    images = {"original": before, "both": bench.drawn(released, noun)}
    mixed.family = Halves(without=original.denoiser, words=released.denoiser)
    images["words"] = bench.drawn(mixed, noun)
    mixed.family = Halves(without=released.denoiser, words=original.denoiser)
    images["without words"] = bench.drawn(mixed, noun)
    renders = bench.renders(noun)
    found = {name: frechet_distance(bench.reader.features(images[name]), renders) for name in DRAWN}
    latents, prompts = original.encode_all(before).mean, (f"a photo of {with_article(noun)}", "")
    for name, words in zip(MOVED, prompts, strict=True):
        found[name] = moved(released, original, latents, words, bench.seed)
    return found | {"class_pictures": len(before)}


@torch.no_grad()
def moved(released: TextToImage, original: TextToImage, z0: Tensor, prompt: str, seed: int) -> float:
    """‖f_θ − f_φ‖², the mean over elements, on z0 [B, C, h, w] under one prompt at drawn noise levels."""
    t, eps = draw(original, z0, torch.Generator().manual_seed(seed))
    z_t = original.schedule.add_noise(z0, eps, t)
    c = original.condition([prompt]).expand(len(z0))
    return float((released.predict(z_t, t, c) - original.predict(z_t, t, c)).float().square().mean())


def sum_up(results: common.Results) -> dict[str, Any]:
    """Per row the means over subjects."""
    found: dict[str, list[common.Cell]] = {}
    for key, cell in results.cells.items():
        row, _, what = key.split("/")
        if what == "parts":
            found.setdefault(row, []).append(cell)
    return {
        row: {name: sum(cell[name] for cell in cells) / len(cells) for name in (*DRAWN, *MOVED)}
        | {"subjects": len(cells)}
        for row, cells in found.items()
    }


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    rows = []
    for key, cell in record["cells"].items():
        row, who, what = key.split("/")
        if what == "parts":
            rows.append([
                row, who, *(f"{cell[name]:.1f}" for name in DRAWN), *(f"{cell[name]:.5f}" for name in MOVED),
            ])  # fmt: skip
    return "\n\n".join([
        common.table(["model", "subject", *HEAD], rows),
        "FID of class pictures against renders, where of the guided answer neither half, f(c), f(∅) or both "
        "are the immunized model's; the mean squared difference of its answers from the original's. Seed "
        f"{record['about']['seed']}.",
    ])


if __name__ == "__main__":
    common.main(cli)
