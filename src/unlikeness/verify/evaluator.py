"""Images of an attacked model, and how similar they are to the subject: s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.errors import NotFiniteError, UsageError
from unlikeness.measure.similarity import Embedder, Pairs, embed_all, mean_similarity, pair_similarities
from unlikeness.seeds import JUDGED
from unlikeness.verify.settings import CONTEXTS, VerifySettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["Evaluator", "Generated", "eight_bits", "generate_subject", "identity_of", "name_of"]


@dataclass(frozen=True, eq=False)
class Evaluator:
    """What images of one subject are compared with.

    Attributes:
        embedder: of the headline. further: others, whose s is reported beside it.
        references: [S, 3, H, W] of the subject.
        of_class: [C, 3, H, W] of other members of the class.
        held_out: whether no attacker had the references; else they are the protected pictures.
    """

    embedder: Embedder
    references: Tensor
    of_class: Tensor
    held_out: bool
    further: tuple[Embedder, ...] = ()
    _vectors: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def embedders(self) -> tuple[Embedder, ...]:
        """All encoders, that of the headline first."""
        return self.embedder, *self.further

    def pairs(self, images: Tensor, embedder: Embedder | None = None) -> Pairs:
        """The cosines of images [B, 3, H, W] in [0, 1] with them, by the headline's encoder or another."""
        chosen = self.embedder if embedder is None else embedder
        return pair_similarities(chosen, images, self.references, self.of_class, known=self._known(chosen))

    def _known(self, embedder: Embedder) -> tuple[Tensor, Tensor] | None:
        """The vectors of the subject and of the class; None if there are no pictures."""
        if not len(self.references) or not len(self.of_class):
            return None
        if id(embedder) not in self._vectors:
            both = embed_all(embedder, self.references), embed_all(embedder, self.of_class)
            self._vectors[id(embedder)] = both
        return self._vectors[id(embedder)]

    def check(self) -> None:
        """UsageError for too few pictures, or an encoder that cannot tell the subject from its class."""
        for embedder in self.embedders:
            try:
                mean_similarity([self.pairs(self.of_class, embedder)], seed=0, resamples=1)
            except UsageError as error:
                if not self.further:
                    raise
                raise UsageError(f"encoder {name_of(embedder)}: {error}") from error


def name_of(embedder: Embedder) -> str:
    """The name of an encoder in a record."""
    return str(getattr(embedder, "name", getattr(embedder, "__name__", type(embedder).__name__)))


def identity_of(embedder: Embedder) -> str:
    """Its name, with the digest of its weights if it has one."""
    return " ".join(filter(None, (name_of(embedder), str(getattr(embedder, "digest", "")))))


@dataclass(frozen=True)
class Generated:
    """Images of an attacked model, uint8 [B, 3, H, W].

    Attributes:
        plain: at the training prompt.
        elsewhere: one at each prompt of `places`; None without contexts.
    """

    plain: Tensor
    elsewhere: Tensor | None
    places: tuple[str, ...]


def generate_subject(
    tuned: TextToImage,
    subject: Subject,
    settings: VerifySettings,
    contexts: Sequence[str] = CONTEXTS,
    *,
    progress: Progress | None = None,
) -> Generated:
    """Images of the subject at its training prompt, then in each context.

    All models get the same seeds, so that images differ by the models alone.
    """
    s = settings
    first = JUDGED + 10_000 * s.seed
    how = {"steps": s.solver_steps, "guidance": s.guidance, "progress": progress}
    seeds = range(first, first + s.pictures)
    plain = tuned.generate([subject.instance_prompt], seeds=seeds, **how)
    places = tuple(place for place in contexts for _ in range(s.pictures_in_context))
    elsewhere = None
    if places:
        prompts = [f"{subject.instance_prompt} {place}" for place in places]
        seeds = range(first + 5_000, first + 5_000 + len(places))
        elsewhere = eight_bits(tuned.generate(prompts, seeds=seeds, **how))
    return Generated(eight_bits(plain), elsewhere, places)


def eight_bits(images: Tensor) -> Tensor:
    """Images in [0, 1] as a file holds them, uint8; `/ 255` brings them back.

    NotFiniteError for values that are not finite: as bytes they would be black.
    """
    if not images.is_floating_point():
        raise UsageError(f"images must be floating point in [0, 1], not {images.dtype}")
    if not bool(torch.isfinite(images).all()):
        raise NotFiniteError("the model draws pictures with values that are no finite numbers")
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
