"""What differs between families of models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.conditioner import Conditioner
    from unlikeness.diffusion.configs import Rule

__all__ = ["Family", "Known"]

Known = tuple[str, tuple[str, ...]]
"""A library, and the classes of it that a part may be of."""


class Family(ABC):
    """Stateless. The names of parts are those of their folders."""

    pipeline: ClassVar[str]
    """The diffusers pipeline class: written to `model_index.json`."""

    lora_loader: ClassVar[str]
    """The class in `diffusers.loaders` that reads and writes this family's LoRA files."""

    default_guidance: ClassVar[float]
    """Classifier-free guidance scale that the family's authors use."""

    parts: ClassVar[Mapping[str, Known]]
    """Each part that is loaded, and the classes that it may be of."""

    carried: ClassVar[Mapping[str, Known]]
    """The parts that are never loaded, only copied when a model is saved."""

    rules: ClassVar[Mapping[str, Mapping[str, Rule]]] = {}
    """Bounds of the configurations of the family's own classes."""

    denoiser: ClassVar[str]
    encoders: ClassVar[tuple[str, ...]]
    tokenizers: ClassVar[tuple[str, ...]]
    autoencoder: ClassVar[str] = "vae"
    """Which parts are the denoiser, the text encoders, the tokenizers and the autoencoder."""

    layers: ClassVar[Mapping[str, str]]
    """Groups of the denoiser's layers -> what occurs in the names of their weights ("": in all)."""

    lora_targets: ClassVar[tuple[str, ...]]
    """The layers of the denoiser that get an adapter."""

    @property
    def networks(self) -> tuple[str, ...]:
        """The parts with weights: autoencoder, denoiser, text encoders."""
        return (self.autoencoder, self.denoiser, *self.encoders)

    @abstractmethod
    def conditioner(self, parts: Mapping[str, Any]) -> Conditioner:
        """From all parts of a model by name."""

    @abstractmethod
    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """f_θ(z_t, t, condition), like z_t, in the denoiser's dtype. t: what the denoiser is told."""

    @abstractmethod
    def latent_sides(self, denoiser: Any) -> tuple[int, int]:
        """(h, w) of the latents at the model's own resolution."""

    @abstractmethod
    def least_side(self, denoiser: Any) -> int:
        """The smallest side of latents that the denoiser takes: for a trial."""

    @abstractmethod
    def check_parts(self, folder: Path, parts: Mapping[str, Any]) -> None:
        """UnlikenessError unless the parts, still without weights, belong together; UsageError for a relative
        of the family that draws nothing from text alone."""

    @abstractmethod
    def check_condition(self, folder: Path, condition: Condition, denoiser: Any) -> None:
        """UnlikenessError unless the denoiser takes conditions of this width."""
