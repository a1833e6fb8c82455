"""The table of immunizations. A method is a class in a file of its own and one `register` line.

A package outside this one adds its methods through the entry-point group "unlikeness.immunize".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from unlikeness.errors import UnlikenessError
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.plugins import Methods, settings_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.batch import Rows
    from unlikeness.immunize.data import Kept
    from unlikeness.progress import Progress

__all__ = ["METHODS", "Defence", "create", "method", "settings_type"]

METHODS = Methods("immunization", "unlikeness.immunize")


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


def method(name: str) -> Any:
    """The class of this name. UsageError if there is none; UnlikenessError if it is not of the right form."""
    found = METHODS.load(name)
    kind = getattr(found, "settings_type", None)
    fits = isinstance(kind, type) and issubclass(kind, ImmunizeSettings)
    if not (fits and callable(getattr(found, "rows", None)) and callable(getattr(found, "loss", None))):
        raise UnlikenessError(f"immunization {name} has no settings_type, rows and loss")
    return found


def settings_type(name: str) -> type[ImmunizeSettings]:
    """The class of a method's settings, of our own methods without importing torch. Raises as `method`."""
    found = METHODS.settings(name)
    if found is not None and issubclass(found, ImmunizeSettings):
        return found
    kind: type[ImmunizeSettings] = method(name).settings_type
    return kind


def create(name: str, settings: ImmunizeSettings | Mapping[str, object] | None = None) -> Defence:
    """A method from its settings, or values for them (numbers or the text of flags)."""
    found = method(name)
    made: Defence = found(settings_of(f"immunization {name}", found.settings_type, settings))
    return made
