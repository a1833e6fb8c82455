"""Families of models, one file each: what differs between Stable Diffusion, SDXL, FLUX and others.

Add a family in two steps: write a file here with a class derived from `Family`, and enter it in `FAMILIES`
under the pipeline class that its `model_index.json` names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition, Conditioner
    from unlikeness.networks.configs import Rule

__all__ = ["CLIP_CARRIED", "FAMILIES", "NOISE_SCHEDULERS", "Family", "Known", "family_of"]

FAMILIES = {
    "StableDiffusionPipeline": "unlikeness.diffusion.families.stable_diffusion:StableDiffusion",
}
"""The pipeline class of diffusers -> where its family is."""

Known = tuple[str, tuple[str, ...]]
"""A library, and the classes of it that a part may be of."""

NOISE_SCHEDULERS = (
    "PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler",
    "TCDScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler", "FlowMatchEulerDiscreteScheduler",
)  # fmt: skip
"""The classes of diffusers that a scheduler may be of."""

CLIP_CARRIED: Mapping[str, Known] = {
    "safety_checker": ("stable_diffusion", ("StableDiffusionSafetyChecker",)),
    "feature_extractor": (
        "transformers",
        ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor"),
    ),
    "image_encoder": ("transformers", ("CLIPVisionModelWithProjection",)),
}
"""Parts around a CLIP that are never loaded, only copied when a model is saved."""


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

    rules: ClassVar[Mapping[str, Mapping[str, Rule]]]
    """Bounds of the configuration of each class that a network of the family may be of."""

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

    def loader(self) -> Any:
        """The class of `lora_loader`."""
        import diffusers.loaders

        return getattr(diffusers.loaders, self.lora_loader)

    def lora_layers(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Any]:
        """(layers by diffusers' names, scales or None) of a LoRA file in any format that diffusers reads."""
        layers, scales = self.loader().lora_state_dict(dict(tensors))
        return layers, scales

    @abstractmethod
    def conditioner(self, parts: Mapping[str, Any]) -> Conditioner:
        """From all parts of a model by name."""

    @abstractmethod
    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """f_θ(z_t, t, condition), like z_t, in the denoiser's dtype. t: its own input for the level."""

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


def family_of(pipeline: str) -> Family:
    """The family of a pipeline class in `FAMILIES`."""
    module, _, name = FAMILIES[pipeline].partition(":")
    family: Family = getattr(import_module(module), name)()
    return family
