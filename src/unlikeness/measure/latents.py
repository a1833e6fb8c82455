"""How far a protection moves what an autoencoder sees of a picture.

Every trainer sees a picture through an autoencoder. The latent displacement of a copy x' of x is

    d(x, x') = ‖E(x') − E(x)‖ / mean over other pictures y of ‖E(y) − E(x)‖

where E is the mean of the normalised latents. At 1, x' is as far from x as another picture is. Gaussian noise
of the same energy is measured beside it. Both are measured again after JPEG and at half size (`ways`): the
original goes the same way, so that only the change counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unlikeness import __version__, finite
from unlikeness.autoencoders import Autoencoder
from unlikeness.errors import PictureError, UnlikenessError, UsageError
from unlikeness.measure.intervals import Interval, bootstrap_mean
from unlikeness.measure.matching import SIZE, Matched, check_size
from unlikeness.measure.ways import WAYS, noisy, opened_pair, seen
from unlikeness.pictures.limits import MAX_PIXELS
from unlikeness.progress import Progress, Silent
from unlikeness.seeds import derive

__all__ = [
    "Displacement", "LatentReport", "PictureDisplacement", "displacements", "sample_sentences",
]  # fmt: skip

OTHERS = 48
"""Other pictures that each picture is compared with, at most: spread evenly over all."""
SAMPLE = 4
"""Pictures of a sample."""
_BATCH = 4

Latents = dict[str, Tensor]
"""By autoencoder: [C, h, w] on the CPU, float32."""


@dataclass(frozen=True)
class PictureDisplacement:
    """One picture: displacement of its copy, and of noise, by autoencoder and way."""

    name: str
    psnr: float | None
    """Of the change [dB]; None if the picture is unchanged."""
    protected: dict[str, dict[str, float]]
    noise: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Displacement:
    """What one autoencoder sees: means over the pictures, by way."""

    name: str
    fingerprint: str
    protected: dict[str, Interval]
    noise: dict[str, Interval]
    """Gaussian noise of the same energy in every picture."""

    @property
    def sentence(self) -> str:
        """The figures of the first way, in plain words."""
        moved, noise = (next(iter(figures.values())).value for figures in (self.protected, self.noise))
        return (
            f"moves what the encoder of {self.name} sees {moved:.2f} as far as another picture would; "
            f"noise of the same strength {noise:.2f}"
        )


@dataclass(frozen=True)
class LatentReport:
    """Displacements of all pairs, and what could not be measured."""

    version: str
    size: int
    """Short side at which the autoencoders saw the pictures [px]."""
    psnr: Interval | None
    """Mean over the pictures that changed [dB]."""
    autoencoders: tuple[Displacement, ...]
    pictures: tuple[PictureDisplacement, ...]
    only_original: tuple[str, ...]
    only_protected: tuple[str, ...]
    failed: tuple[str, ...]
    """One line for each pair that could not be measured."""


@torch.no_grad()
def displacements(
    found: Matched,
    autoencoders: Mapping[str, Autoencoder],
    *,
    size: int = SIZE,
    ways: Sequence[str] = tuple(WAYS),
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> LatentReport:
    """Latent displacement of every pair, by autoencoder.

    Args:
        found: pairs of files; two or more are needed, as displacement is relative to other pictures.
        autoencoders: by the name that the report gives them.
        size: short side at which a trainer sees pictures [px]; the square in the middle is taken.
        ways: names of `WAYS`, "as it is" first.
        seed: of the noise and the bootstrap intervals.
        max_pixels: larger pictures cannot be measured.

    Raises:
        UsageError: fewer than two pairs, no autoencoder, or a size out of bounds.
        UnlikenessError: fewer than two pairs can be measured.
        NotFiniteError: an autoencoder gives NaN or infinity.
    """
    check_size(size)
    if not autoencoders:
        raise UsageError("no autoencoder is given; name one at least")
    if len(found.pairs) < 2:
        raise UsageError(
            f"{found.pairs[0][1]} is a single picture, but displacement is relative to other pictures; give "
            "folders of two or more"
        )
    progress = progress or Silent()
    progress.start(len(found.pairs) * 2, "measuring", "picture")
    failed: dict[str, str] = {}
    others: dict[str, Latents] = {}
    every = math.ceil(len(found.pairs) / OTHERS)
    for place, (name, original, protected) in enumerate(found.pairs):
        if place % every == 0:
            try:
                before, _ = opened_pair(original, protected, max_pixels)
                view = [seen(before, size)]
                others[name] = {key: _latents(one, view)[0] for key, one in autoencoders.items()}
            except PictureError as error:
                failed[name] = str(error)
        progress.advance()
    done: list[PictureDisplacement] = []
    for name, original, protected in found.pairs:
        if name not in failed and len(others) > 1:
            try:
                pair = opened_pair(original, protected, max_pixels)
                done.append(_displaced(name, pair, autoencoders, others, size, ways, derive(seed, name)))
            except PictureError as error:
                failed[name] = str(error)
        progress.advance()
    progress.close()
    if not done:
        raise UnlikenessError("two or more pairs that can be read are needed; " + "; ".join(failed.values()))
    psnr = [one.psnr for one in done if one.psnr is not None]

    def means(of: str, key: str) -> dict[str, Interval]:
        return {way: bootstrap_mean([[getattr(p, of)[key][way] for p in done]], seed=seed) for way in ways}

    return LatentReport(
        version=__version__,
        size=size,
        psnr=bootstrap_mean([psnr], seed=seed) if psnr else None,
        autoencoders=tuple(
            Displacement(key, one.fingerprint, means("protected", key), means("noise", key))
            for key, one in autoencoders.items()
        ),
        pictures=tuple(done),
        only_original=found.only_original,
        only_protected=found.only_protected,
        failed=tuple(failed[name] for name, _, _ in found.pairs if name in failed),
    )


def sample_sentences(
    pairs: Sequence[tuple[Path, Path]],
    autoencoders: Mapping[str, Autoencoder],
    *,
    size: int = SIZE,
    seed: int = 0,
    most: int = SAMPLE,
    max_pixels: int = MAX_PIXELS,
) -> list[str]:
    """One plain sentence for each autoencoder, from a sample of (original, protected), spread evenly.

    Nothing for fewer than two pairs: displacement is relative to other pictures. Raises as `displacements`.
    """
    some = Matched(tuple((str(place), *pair) for place, pair in enumerate(pairs))).sample(most)
    if len(some.pairs) < 2 or not autoencoders:
        return []
    report = displacements(
        some, autoencoders, size=size, ways=("as it is",), seed=seed, max_pixels=max_pixels
    )
    return [f"{one.sentence} (measured on {len(report.pictures)} pictures)" for one in report.autoencoders]


def _displaced(
    name: str,
    pair: tuple[Tensor, Tensor],
    autoencoders: Mapping[str, Autoencoder],
    others: Mapping[str, Latents],
    size: int,
    ways: Sequence[str],
    seed: int,
) -> PictureDisplacement:
    """The figures of one pair [3, H, W]."""
    before, after = pair
    changed = not torch.equal(before, after)
    noised = noisy(before, after, torch.Generator().manual_seed(seed))
    error = float((after - before).square().mean(dtype=torch.float64))
    views = [seen(WAYS[way](image), size) for image in (before, after, noised) for way in ways]
    moved: dict[str, dict[str, float]] = {}
    noise: dict[str, dict[str, float]] = {}
    for key, one in autoencoders.items():
        if not changed:
            moved[key] = noise[key] = dict.fromkeys(ways, 0.0)
            continue
        known = [others[name][key]] if name in others else []
        latents = known + _latents(one, views[len(known) :])
        n = len(ways)
        rest = [latent[key] for other, latent in others.items() if other != name]
        far = sum(float((latent - latents[0]).norm()) for latent in rest) / len(rest)
        if far <= 0:
            raise PictureError(f"{name}: the other pictures are the same; give pictures that differ")
        for start, figures in ((n, moved), (2 * n, noise)):
            figures[key] = {
                way: float((latents[start + i] - latents[i]).norm()) / far for i, way in enumerate(ways)
            }
    return PictureDisplacement(name, -10 * math.log10(error) if changed else None, moved, noise)


def _latents(autoencoder: Autoencoder, views: Sequence[Tensor]) -> list[Tensor]:
    """E of views [3, S, S], a batch at a time: [C, h, w] each, float32 on the CPU."""
    found: list[Tensor] = []
    for start in range(0, len(views), _BATCH):
        mean = autoencoder.encode(torch.stack(list(views[start : start + _BATCH]))).mean
        found += finite.check(mean, finite.ENCODER, autoencoder.dtype).float().cpu()
    return found
