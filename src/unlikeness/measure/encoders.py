"""The image encoders that `unlikeness measure similarity --encoder` knows by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlikeness.errors import UsageError
from unlikeness.settings import named
from unlikeness.words import closest

if TYPE_CHECKING:
    from torch import Tensor

    from unlikeness.measure.similarity import Embedder

__all__ = ["ENCODERS", "Encoder", "check_encoder", "load_encoder"]

ENCODERS: tuple[str, ...] = ("toybox",)


@dataclass(frozen=True)
class Encoder:
    """An embedder that first resizes pictures to the side [px] of those that it was trained on."""

    name: str
    embedder: Embedder
    resolution: int

    def __call__(self, images: Tensor) -> Tensor:
        from unlikeness.viewing import at_side

        return self.embedder(at_side(images, self.resolution))


def load_encoder(name: str) -> Encoder:
    """The encoder called `name`. Raises UsageError, naming the known ones, if there is none."""
    check_encoder(name)

    from unlikeness.toybox.evaluators import load_identity

    return Encoder(name, load_identity(), resolution=64)


def check_encoder(name: str) -> None:
    """UsageError, naming the known ones, if no encoder has this name; does not import torch."""
    if name in ENCODERS:
        return
    known = ", ".join(ENCODERS)
    raise UsageError(f"{named('encoder')} {name!r} is unknown{closest(name, ENCODERS)}; known: {known}")
