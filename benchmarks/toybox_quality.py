"""Is the toybox good enough to measure with? Its autoencoder, samples, classifier and identity encoder.

    python -m benchmarks.toybox_quality

Everything is drawn from seeds that no training uses. The grid of samples lies beside the results file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import attacking, common
from unlikeness.diffusion import TextToImage
from unlikeness.gallery import grid
from unlikeness.measure.distribution import frechet_distance, kernel_distance_subsets
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.measure.similarity import Embedder, embed_all
from unlikeness.measure.visibility import psnr
from unlikeness.progress import on_stderr
from unlikeness.subjects import with_article
from unlikeness.toybox.cast import member
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS, sample_identity, sample_scene, to_images

NAME = "toybox_quality"
CODE = attacking.CODE

_RENDERS = 8_000_001
_SAMPLES = 5_000_000
IDENTITY_SEED = 20_000
"""First seed of the subjects that the identity encoder is tried on."""

PROMPTS = [(noun, context) for noun, context in product(CLASS_NOUNS, CONTEXTS)]


@dataclass(frozen=True)
class Sizes:
    """How many pictures; `subjects` and `views` of the identity encoder are per class noun and subject."""

    reconstructions: int = 512
    samples: int = 512
    subjects: int = 24
    views: int = 4
    steps: int = 25


QUICK = Sizes(reconstructions=8, samples=48, subjects=3, views=3, steps=2)


class Judge(Protocol):
    """The classifier."""

    def read(self, images: Tensor) -> tuple[list[str], list[str]]: ...
    def features(self, images: Tensor) -> Tensor: ...


def cli(argv: Sequence[str] | None) -> None:
    args = common.parser(__doc__.split("\n")[0] if __doc__ else "").parse_args(argv)
    from unlikeness.toybox.evaluators import load_classifier, load_identity

    sizes = QUICK if args.quick else Sizes()
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    judge, encoder = load_classifier(), load_identity()
    about = {
        "model": common.model_name(args.model),
        "weights": common.model_digest(model),
        "guidance": model.defaults.guidance,
        "judges": common.weights_digest(encoder.net, judge.net),
        "seed": args.seed,
        "sizes": asdict(sizes),
    }
    results = common.Results(
        common.results_file(NAME, args), NAME, about,
        fresh=args.fresh, code=common.code_digest(*CODE), keep=args.keep,
    )  # fmt: skip
    measure(model, judge, encoder, results, sizes, args.seed)
    print(render(results.record))


def measure(
    model: TextToImage, judge: Judge, encoder: Embedder, results: common.Results, sizes: Sizes, seed: int
) -> None:
    """Fill the four cells."""
    results.cell("autoencoder", lambda: reconstruction(model, sizes.reconstructions, seed))
    results.cell("classifier", lambda: reading(judge, *renders(sizes.samples, seed, 0), seed))
    results.cell("identity", lambda: telling_apart(encoder, sizes.subjects, sizes.views, seed))
    sheet = results.path.with_suffix(".png")
    results.cell("samples", lambda: sampling(model, judge, sizes, seed, sheet))
    results.finish({}, device=model.device)


def renders(count: int, seed: int, part: int) -> tuple[Tensor, list[tuple[str, str]]]:
    """`count` fresh renders [count, 3, 64, 64], all class nouns and contexts in turn, and which they are."""
    wanted = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    pixels = []
    for i, (noun, context) in enumerate(wanted):
        rng = np.random.default_rng((_RENDERS, seed, part, i))
        pixels.append(sample_scene(rng, sample_identity(rng, noun), context).render())
    return to_images(np.stack(pixels)), wanted


def reconstruction(model: TextToImage, count: int, seed: int) -> dict[str, Any]:
    """PSNR [dB] of renders through the posterior's mean and back."""
    images, _ = renders(count, seed, 1)
    images = fitted(images, model)
    with torch.no_grad():
        again = torch.cat([model.decode(model.encode(part).mean).cpu() for part in torch.split(images, 32)])
    values = psnr(images, again).tolist()
    figures = bootstrap_mean([values], seed=seed)
    interval = {"value": figures.value, "low": figures.low, "high": figures.high}
    return {**interval, "least": min(values), "n": count}


def fitted(images: Tensor, model: TextToImage) -> Tensor:
    """At the model's own resolution."""
    size = (model.resolution, model.resolution)
    return images if images.shape[-2:] == size else torch.nn.functional.interpolate(images, size, mode="area")


def reading(judge: Judge, images: Tensor, wanted: Sequence[tuple[str, str]], seed: int) -> dict[str, Any]:
    """The shares of pictures that the classifier reads as another class noun or context than wanted."""
    nouns, contexts = judge.read(images)
    found: dict[str, Any] = {"n": len(images)}
    pairs = (
        ("wrong_class", [float(a != b) for a, (b, _) in zip(nouns, wanted, strict=True)]),
        ("wrong_context", [float(a != b) for a, (_, b) in zip(contexts, wanted, strict=True)]),
    )
    for name, wrong in pairs:
        share = bootstrap_mean([wrong], seed=seed)
        found[name] = {"value": share.value, "low": share.low, "high": share.high}
    return found


def sampling(model: TextToImage, judge: Judge, sizes: Sizes, seed: int, sheet: Any) -> dict[str, Any]:
    """Samples over all prompts: how they are read, and how far they are from renders as a set."""
    wanted = [PROMPTS[i % len(PROMPTS)] for i in range(sizes.samples)]
    first = _SAMPLES + 10_000 * seed
    with on_stderr() as progress:
        images = model.generate(
            [f"a photo of {with_article(noun)} {context}" for noun, context in wanted],
            seeds=range(first, first + len(wanted)),
            steps=sizes.steps,
            progress=progress,
        )
    sheet.parent.mkdir(parents=True, exist_ok=True)
    shown = grid(images[: len(PROMPTS)], columns=len(CONTEXTS))
    shown.resize((2 * shown.width, 2 * shown.height), Image.Resampling.NEAREST).save(sheet)
    real = judge.features(renders(sizes.samples, seed, 2)[0])
    other = judge.features(renders(sizes.samples, seed, 3)[0])
    drawn = judge.features(images)
    kid, kid_spread = kernel_distance_subsets(drawn, real, seed=seed)
    floor, floor_spread = kernel_distance_subsets(other, real, seed=seed)
    return {
        **reading(judge, images, wanted, seed),
        "fid": frechet_distance(drawn, real),
        "fid_renders": frechet_distance(other, real),
        "kid": kid,
        "kid_spread": kid_spread,
        "kid_renders": floor,
        "kid_renders_spread": floor_spread,
    }


def auc(same: Tensor, different: Tensor) -> float:
    """The probability that a value of `same` exceeds one of `different`, ties counting half."""
    different = different.sort().values
    below = torch.searchsorted(different, same, right=False)
    not_above = torch.searchsorted(different, same, right=True)
    return float((below + not_above).double().mean() / (2 * len(different)))


def telling_apart(encoder: Embedder, subjects: int, views: int, seed: int) -> dict[str, Any]:
    """AUC of the cosine over pairs of pictures of one class noun: the same subject or two.

    Per class noun over all its pairs; the interval resamples subjects, each with the AUC of its own pairs.
    """
    by_noun: dict[str, float] = {}
    by_subject: list[float] = []
    for noun in CLASS_NOUNS:
        cast = [member(IDENTITY_SEED + 1_000 * seed + i, noun) for i in range(subjects)]
        vectors = embed_all(encoder, torch.cat([who.held_out(views) for who in cast]))
        cosines = vectors @ vectors.T
        owner = torch.arange(subjects).repeat_interleave(views)
        same = owner[:, None] == owner[None, :]
        pair = ~torch.eye(len(owner), dtype=torch.bool)
        by_noun[noun] = auc(cosines[same & pair], cosines[~same])
        by_subject += [
            auc(cosines[(owner == i)[:, None] & same & pair], cosines[(owner == i)[:, None] & ~same])
            for i in range(subjects)
        ]
    # The class nouns are all there are, not a sample of more: subjects alone are drawn.
    figures = bootstrap_mean([by_subject], seed=seed)
    return {
        "value": sum(by_noun.values()) / len(by_noun),
        "by_class_noun": by_noun,
        "by_subject": {"value": figures.value, "low": figures.low, "high": figures.high},
        "subjects": subjects * len(CLASS_NOUNS),
        "views": views,
    }


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    cells = record["cells"]
    vae, reads, samples, who = (cells[name] for name in ("autoencoder", "classifier", "samples", "identity"))
    n, drawn = f"{reads['n']} renders", f"{samples['n']} samples"

    def share(figures: Mapping[str, float]) -> str:
        return f"{figures['value']:.1%} [{figures['low']:.1%}, {figures['high']:.1%}]"

    worst = min(who["by_class_noun"], key=lambda noun: who["by_class_noun"][noun])
    rows = [
        ["autoencoder, PSNR [dB]", common.interval(vae), "≥ 30", f"{vae['n']} renders"],
        ["read as a wrong class", share(samples["wrong_class"]), "≤ 5 %", drawn],
        ["the same of fresh renders", share(reads["wrong_class"]), "", n],
        ["read as a wrong context", share(samples["wrong_context"]), "≤ 10 %", drawn],
        ["the same of fresh renders", share(reads["wrong_context"]), "", n],
        ["FID in classifier features", f"{samples['fid']:.3f}", "", f"{drawn}, {n}"],
        ["the same, render against render", f"{samples['fid_renders']:.3f}", "", f"twice {n}"],
        ["KID in classifier features", f"{samples['kid']:.5f} ± {samples['kid_spread']:.5f}", "", drawn],
        ["the same, render against render",
         f"{samples['kid_renders']:.5f} ± {samples['kid_renders_spread']:.5f}", "", f"twice {n}"],
        ["identity encoder, AUC", f"{who['value']:.4f}", "≥ 0.98",
         f"{who['subjects']} unseen subjects × {who['views']}"],
        [f"its worst class noun ({worst})", f"{who['by_class_noun'][worst]:.4f}", "", ""],
        ["its mean over subjects", common.interval(who["by_subject"], 4), "", f"{who['subjects']} subjects"],
    ]  # fmt: skip
    return "\n\n".join([
        common.table(["figure", "value", "goal", "n"], rows),
        f"Seed {record['about']['seed']}; samples of {record['about']['sizes']['steps']} steps at guidance "
        f"{record['about']['guidance']:g}. "
        "Intervals: 95 %, bootstrap; KID: mean and standard deviation over 100 subsets of at most 256.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
