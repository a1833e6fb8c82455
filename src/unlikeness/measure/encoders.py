"""The image encoders that `unlikeness measure similarity --encoder` knows by name."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from unlikeness.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from unlikeness.measure.similarity import Embedder

__all__ = ["ENCODERS", "Encoder", "check_encoder", "load_encoder"]

ENCODERS: tuple[str, ...] = ("toybox",)


@dataclass(frozen=True)
class Encoder:
    """An embedder, and the side [px] of the square pictures that it was trained on."""

    name: str
    embedder: Embedder
    resolution: int

    def __call__(self, images: Tensor) -> Tensor:
        return self.embedder(images)


def load_encoder(name: str) -> Encoder:
    """The encoder called `name`. Raises UsageError, naming the known ones, if there is none."""
    check_encoder(name)

    from unlikeness.toybox.evaluators import load_identity

    return Encoder(name, load_identity(), resolution=64)


def check_encoder(name: str) -> None:
    """UsageError, naming the known ones, if no encoder has this name; torch is not imported for it."""
    if name in ENCODERS:
        return
    guess = get_close_matches(name, ENCODERS, n=1)
    hint = f"did you mean {guess[0]}?" if guess else f"known: {', '.join(ENCODERS)}"
    raise UsageError(f"no encoder is called {name!r}; {hint}")
