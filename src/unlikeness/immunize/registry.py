"""The table of immunizations, ours and those of other packages (`plugins`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.plugins import Methods

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.batch import Rows
    from unlikeness.immunize.data import Kept
    from unlikeness.progress import Progress

__all__ = ["METHODS", "Defence", "create", "method", "settings_type"]

class Defence(Protocol):
    """A method: what is asked of the U-Net along an attack, and what loss its answers come to."""

    @property
    def settings(self) -> ImmunizeSettings: ...

    def prepare(self, original: TextToImage, kept: Sequence[Kept], progress: Progress | None = None) -> None:
        """Whatever is drawn or encoded once, before the first step."""

    def rows(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Rows:
        """One batch against `attack`; everything random from `generator`."""

    def loss(self, f: Tensor, rows: Rows) -> Tensor:
        """The protective loss, a scalar, of the U-Net's answers f [M, C, h, w] (float32) to `rows`."""


METHODS: Methods[ImmunizeSettings, Defence] = Methods(
    "immunization", "unlikeness.immunize", ImmunizeSettings, ("rows", "loss")
)
create = METHODS.create
method = METHODS.load
settings_type = METHODS.settings_type
