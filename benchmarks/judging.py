"""Evaluate a personalized model: does it draw the subject, and does the prompt still count?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.measure.similarity import Embedder, Pairs, mean_similarity, pair_similarities
from unlikeness.measure.similarity import packed as pack
from unlikeness.measure.similarity import unpacked as unpack
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import Member, class_pictures

__all__ = [
    "TRAINING", "Counts", "Judge", "Reader", "pack", "s_of", "summarize", "toybox_judge", "unpack",
]  # fmt: skip

TRAINING = 5
"""Pictures that an attacker has of a subject."""


class Reader(Protocol):
    """Names the class noun and the context of pictures [B, 3, H, W] in [0, 1]."""

    def read(self, images: Tensor) -> tuple[list[str], list[str]]: ...


@dataclass(frozen=True)
class Counts:
    """Pictures of each kind for one subject, solver steps of each, and noise levels of a diffusion loss."""

    generated: int = 16
    per_context: int = 4
    held_out: int = 10
    of_class: int = 24
    steps: int = 25
    levels: int = 50

    @staticmethod
    def few() -> Counts:
        return Counts(generated=2, per_context=1, held_out=3, of_class=3, steps=3, levels=3)


@dataclass(frozen=True)
class Judge:
    """The encoder, the classifier, and how many pictures they evaluate."""

    embedder: Embedder
    reader: Reader
    counts: Counts

    def look(
        self, tuned: TextToImage, who: Member, subject: Subject, seed: int
    ) -> tuple[dict[str, Any], Tensor]:
        """(figures, pictures): s at the training prompt and at prompts with a context new to the subject.

        The pictures [generated + contexts × per_context, 3, H, W] come in that order. Their seeds depend on
        the subject and `seed`, so that two models start from the same noise.
        """
        n = self.counts
        first = 3_000_000 + 10_000 * (seed + who.seed)
        plain = tuned.generate(
            [subject.instance_prompt], seeds=range(first, first + n.generated), steps=n.steps
        )
        contexts = [context for context in who.contexts()[TRAINING:] for _ in range(n.per_context)]
        there = tuned.generate(
            [f"{subject.instance_prompt} {context}" for context in contexts],
            seeds=range(first + 5_000, first + 5_000 + len(contexts)),
            steps=n.steps,
        )
        held_out = who.held_out(n.held_out)
        others = class_pictures(who.class_noun, n.of_class, seed=1 + who.seed)
        pairs = pair_similarities(self.embedder, plain, held_out, others)
        elsewhere = pair_similarities(self.embedder, there, held_out, others)
        _, read = self.reader.read(there)
        nouns, _ = self.reader.read(plain)
        figures = {
            "s": round(s_of(pairs), 4),
            "s_new_context": round(s_of(elsewhere), 4),
            "context_read": round(float(np.mean([a == b for a, b in zip(read, contexts, strict=True)])), 4),
            "class_read": round(float(np.mean([noun == who.class_noun for noun in nouns])), 4),
            "pictures": len(plain),
            "pictures_new_context": len(there),
            "pairs": pack(pairs),
        }
        return figures, torch.cat([plain, there])


def s_of(pairs: Pairs) -> float:
    """s of one subject. UsageError if the encoder does not tell it from its class."""
    return mean_similarity([pairs], seed=0, resamples=1).value


def summarize(cells: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """Means over subjects with hierarchical bootstrap intervals, from the cells of `Judge.look`."""
    s = mean_similarity([unpack(cell["pairs"]) for cell in cells], seed=seed)
    context = bootstrap_mean([[cell["context_read"]] for cell in cells], seed=seed)
    return {
        "s": {"value": s.value, "low": s.low, "high": s.high},
        "s_least": min(cell["s"] for cell in cells),
        "s_new_context": float(np.mean([cell["s_new_context"] for cell in cells])),
        "context_read": {"value": context.value, "low": context.low, "high": context.high},
        "class_read": float(np.mean([cell["class_read"] for cell in cells])),
        "subjects": len(cells),
        "pictures": sum(cell["pictures"] for cell in cells),
        "pictures_new_context": sum(cell["pictures_new_context"] for cell in cells),
        "seed": seed,
    }


def toybox_judge(counts: Counts) -> tuple[Judge, str]:
    """The shipped encoder and classifier, and the digest of their weights."""
    from benchmarks.common import weights_digest
    from unlikeness.toybox.evaluators import load_classifier, load_identity

    encoder, reader = load_identity(), load_classifier()
    return Judge(encoder, reader, counts), weights_digest(encoder.net, reader.net)
