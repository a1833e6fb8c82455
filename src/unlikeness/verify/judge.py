"""Is what an attacked model draws the subject? s at the training prompt, and at prompts in new contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.errors import NotFiniteError, UsageError
from unlikeness.measure.encoders import Encoder
from unlikeness.measure.similarity import (
    Embedder,
    Pairs,
    SubjectSimilarity,
    embed_all,
    mean_similarity,
    pair_similarities,
)
from unlikeness.seeds import JUDGED
from unlikeness.verify.settings import CONTEXTS, VerifySettings
from unlikeness.viewing import at_side

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["AtResolution", "Drawn", "Yardstick", "draw_subject", "eight_bits", "likeness"]


@dataclass(frozen=True)
class AtResolution:
    """A named encoder that first brings pictures to the side it was trained on: an `Embedder`."""

    encoder: Encoder

    @property
    def name(self) -> str:
        return self.encoder.name

    def __call__(self, images: Tensor) -> Tensor:
        return self.encoder(at_side(images, self.encoder.resolution))


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What s is measured along, for one subject.

    references: [S, 3, H, W], held out unless `held_out` says that they are the protected pictures themselves.
    of_class: [C, 3, H, W], other members of the class.
    """

    embedder: Embedder
    references: Tensor
    of_class: Tensor
    held_out: bool

    def pairs(self, images: Tensor) -> Pairs:
        """The cosines of pictures [B, 3, H, W] in [0, 1] with them, which are embedded once for all calls."""
        return pair_similarities(self.embedder, images, self.references, self.of_class, known=self._known)

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor] | None:
        """The vectors of the subject and of the class; None if there are no pictures."""
        if not len(self.references) or not len(self.of_class):
            return None
        return embed_all(self.embedder, self.references), embed_all(self.embedder, self.of_class)

    def check(self) -> None:
        """UsageError if the encoder does not tell the subject from its class; or for too few pictures."""
        mean_similarity([self.pairs(self.of_class)], seed=0, resamples=1)


@dataclass(frozen=True)
class Drawn:
    """What an attacked model drew: uint8 [B, 3, H, W].

    plain: at the training prompt. elsewhere: at the prompts of `places`, one each; None without contexts.
    """

    plain: Tensor
    elsewhere: Tensor | None
    places: tuple[str, ...]


def likeness(pairs: Sequence[Pairs], *, seed: int) -> SubjectSimilarity:
    """s, the mean over subjects; its interval redraws subjects, and pictures within each."""
    return mean_similarity(pairs, seed=seed)


def draw_subject(
    tuned: TextToImage,
    subject: Subject,
    settings: VerifySettings,
    contexts: Sequence[str] = CONTEXTS,
    *,
    progress: Progress | None = None,
) -> Drawn:
    """Ask a model for the subject by the words it was taught with, then in each context.

    Two models are asked with the same seeds, so that their pictures differ by the models alone.
    """
    s = settings
    first = JUDGED + 10_000 * s.seed
    how = {"steps": s.solver_steps, "guidance": s.guidance, "progress": progress}
    seeds = range(first, first + s.pictures)
    plain = tuned.generate([subject.instance_prompt], seeds=seeds, **how)  # type: ignore[arg-type]
    places = tuple(place for place in contexts for _ in range(s.pictures_in_context))
    elsewhere = None
    if places:
        prompts = [f"{subject.instance_prompt} {place}" for place in places]
        seeds = range(first + 5_000, first + 5_000 + len(places))
        elsewhere = eight_bits(tuned.generate(prompts, seeds=seeds, **how))  # type: ignore[arg-type]
    return Drawn(eight_bits(plain), elsewhere, places)


def eight_bits(images: Tensor) -> Tensor:
    """Images in [0, 1] as a file would hold them, uint8; `/ 255` brings them back.

    NotFiniteError for pictures that are none: as bytes they would be black, which looks like nobody.
    """
    if not images.is_floating_point():
        raise UsageError(f"images must be floating point in [0, 1], not {images.dtype}")
    if not bool(torch.isfinite(images).all()):
        raise NotFiniteError("the model draws pictures with values that are no finite numbers")
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
