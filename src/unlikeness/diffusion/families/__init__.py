"""Families of models, one file each: what differs between Stable Diffusion, SDXL, FLUX and others.

Add a family in two steps: write a file here with a class derived from `Family`, and enter it in the table
below under the pipeline class that its `model_index.json` names.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor

from unlikeness.diffusion.devices import SAMPLERS

if TYPE_CHECKING:
    import torch

    from unlikeness.diffusion.condition import Condition, Conditioner
    from unlikeness.diffusion.schedule import Schedule
    from unlikeness.networks.configs import Rule

__all__ = [
    "AUTOENCODER",
    "BESIDE",
    "CLIP_CARRIED",
    "CLIP_TOKENIZER",
    "FAMILIES",
    "NOISE_SCHEDULERS",
    "RELATIVES",
    "Defaults",
    "Family",
    "Known",
    "family_of",
]  # fmt: skip

_TABLE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "StableDiffusion": (
        "stable_diffusion:StableDiffusion",
        ("Img2Img", "Inpaint", "ControlNet", "ControlNetImg2Img", "ControlNetInpaint", "PAG", "SAG",
         "AttendAndExcite", "Panorama"),
    ),
    "StableDiffusionXL": (
        "sdxl:StableDiffusionXL",
        ("Img2Img", "Inpaint", "ControlNet", "ControlNetImg2Img", "ControlNetInpaint", "PAG"),
    ),
    "StableDiffusion3": ("sd3:StableDiffusion3", ("Img2Img", "Inpaint", "ControlNet", "PAG")),
    "Flux": ("flux:Flux", ("Img2Img", "Inpaint", "ControlNet", "ControlNetImg2Img")),
    "ZImage": ("z_image:ZImage", ("Img2Img", "Inpaint")),
}  # fmt: skip
"""How diffusers' pipeline classes begin -> the file and the class of the family, and the words between that
beginning and "Pipeline" in the names of its relatives."""

FAMILIES = {f"{name}Pipeline": f"{__name__}.{where}" for name, (where, _) in _TABLE.items()}
"""The pipeline class of diffusers -> where its family is."""

RELATIVES = {
    f"{name}{word}Pipeline": f"{name}Pipeline" for name, (_, words) in _TABLE.items() for word in words
} | dict.fromkeys(
    ("LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"), "StableDiffusionPipeline"
)
"""Pipeline classes with the parts of a family -> the family's own pipeline class. The denoiser decides
whether such a model draws from text alone."""

BESIDE: Mapping[str, Known] = {
    "controlnet": ("diffusers", ("ControlNetModel", "MultiControlNetModel", "SD3ControlNetModel",
                                 "FluxControlNetModel")),
}  # fmt: skip
"""Parts of `RELATIVES` that are neither loaded nor written: the family's pipeline has no place for them."""

Known = tuple[str, tuple[str, ...]]
"""A library, and the classes of it that a part may be of."""

AUTOENCODER: Known = ("diffusers", ("AutoencoderKL", "AutoencoderTiny"))
CLIP_TOKENIZER: Known = ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast"))
"""Parts that several families have."""

NOISE_SCHEDULERS = (
    "PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler",
    "TCDScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler",
)  # fmt: skip
"""The classes of diffusers that the scheduler of a variance-preserving family may be of: those with ᾱ."""

CLIP_CARRIED: Mapping[str, Known] = {
    "safety_checker": ("stable_diffusion", ("StableDiffusionSafetyChecker",)),
    "feature_extractor": (
        "transformers",
        ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor"),
    ),
    "image_encoder": ("transformers", ("CLIPVisionModelWithProjection",)),
}
"""Parts around a CLIP that are never loaded, only copied when a model is saved."""


@dataclass(frozen=True)
class Defaults:
    """What a model draws with by default.

    guidance: scale of classifier-free guidance, or of embedded guidance.
    steps: of the solver.
    sampler: its name in `devices.SAMPLERS`.
    spacing: diffusers' timestep_spacing. None is that of the model's own scheduler.
    resolution: side of its pictures [px], in training too. None is that of the denoiser's configuration.
    """

    guidance: float
    steps: int = 25
    sampler: str = "dpm++"
    spacing: str | None = None
    resolution: int | None = None


class Family(ABC):
    """Stateless. The names of parts are those of their folders."""

    pipeline: ClassVar[str]
    """The diffusers pipeline class: written to `model_index.json`."""

    title: ClassVar[str]
    """The family's name for readers."""

    kinds: ClassVar[Mapping[int, str]] = {}
    """Width of the prompt's tokens -> the name of that kind of model, where the width tells."""

    lora_loader: ClassVar[str]
    """The class in `diffusers.loaders` that reads and writes this family's LoRA files."""

    lora_names: ClassVar[str] = ""
    """A pattern of names that LoRA files of this family have, and those of families before it in the table
    have not. "": none."""

    kohya_module: ClassVar[str] = ""
    """sd-scripts' module for a LoRA of this family. "": such files are not written."""

    usual: ClassVar[Defaults]
    """What the family's authors draw with. `defaults` has the kinds of models that differ."""

    samplers: ClassVar[tuple[str, ...]] = SAMPLERS
    """The samplers that draw with models of this family."""

    parts: ClassVar[Mapping[str, Known]]
    """Each part that is loaded, and the classes that it may be of."""

    optional: ClassVar[tuple[str, ...]] = ()
    """Those of them without which a model works. See `lacking`."""

    carried: ClassVar[Mapping[str, Known]]
    """The parts that are never loaded, only copied when a model is saved."""

    flags: ClassVar[Mapping[str, bool]] = {}
    """The family's yes-or-no entries of `model_index.json`, and what holds where one is left out. A copy has
    them too."""

    rules: ClassVar[Mapping[str, Mapping[str, Rule]]]
    """Bounds of the configuration of each class that a network of the family may be of."""

    denoiser: ClassVar[str]
    encoders: ClassVar[tuple[str, ...]]
    tokenizers: ClassVar[tuple[str, ...]]
    autoencoder: ClassVar[str] = "vae"
    """Which parts are the denoiser, the text encoders, the tokenizers and the autoencoder."""

    layers: ClassVar[Mapping[str, str]]
    """Groups of the denoiser's layers -> what occurs in the names of their weights ("": in all)."""

    prompt_layers: ClassVar[tuple[str, ...]] = ("to_k", "to_v")
    """The layers in the group cross-attention that make keys and values of the prompt."""

    lora_targets: ClassVar[tuple[str, ...]]
    """The layers of the denoiser that get an adapter."""

    lora_encoders: ClassVar[tuple[str, ...]] = ()
    """The text encoders that may get an adapter: CLIPs, as in diffusers' training scripts."""

    original: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """A transformer's layers by their names in the original layout: a table of `single_file.names`."""

    @property
    def networks(self) -> tuple[str, ...]:
        """The parts with weights: autoencoder, denoiser, text encoders."""
        return (self.autoencoder, self.denoiser, *self.encoders)

    def lacking(self, absent: Iterable[str]) -> Self:
        """The family of a model that lacks these `optional` parts."""
        gone = set(absent)
        less = copy.copy(self)
        vars(less).update(
            parts={name: known for name, known in self.parts.items() if name not in gone},
            encoders=tuple(name for name in self.encoders if name not in gone),
            tokenizers=tuple(name for name in self.tokenizers if name not in gone),
        )
        return less

    def schedule(self, scheduler: Any) -> Schedule:
        """How noise is added, from the model's own scheduler."""
        from unlikeness.diffusion.schedule import Schedule

        return Schedule.from_scheduler(scheduler)

    def defaults(self, parts: Mapping[str, Any], name: str) -> Defaults:
        """What a model draws with: `usual`, or what its kind (Turbo, Lightning, ...) was distilled for.

        parts: the model's parts, of which configurations may be read; name: its hub name or folder, "" if it
        has none.
        """
        return self.usual

    def solver(self, scheduler: Any, sampler: str, spacing: str | None = None) -> Any:
        """A diffusers solver of this kind, from the model's own scheduler. spacing: see `Defaults`.

        UsageError for a sampler that is none of `samplers`.
        """
        from unlikeness.diffusion.solvers import variance_preserving

        return variance_preserving(scheduler, sampler, spacing)

    def set_steps(
        self, solver: Any, steps: int, latents: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        """Give the solver its steps. latents: (C, h, w) of a picture, whose size some solvers use."""
        solver.set_timesteps(steps, device=device)

    def embeds_guidance(self, denoiser: Any) -> bool:
        """Whether the denoiser takes the scale of guidance as an input, so that one pass draws with it."""
        return False

    def guides(self, scale: float) -> bool:
        """Whether guidance of this scale is classifier-free guidance: 1 is the prompt's own prediction."""
        return scale > 1

    def guided(
        self, predict: Callable[[Condition], Tensor], condition: Condition, unconditional: Condition,
        scale: float,
    ) -> Tensor:  # fmt: skip
        """f_∅ + scale · (f_c − f_∅) (Ho & Salimans 2022), both in one call.

        predict: f in float32, for as many conditions as there are pictures, or a multiple of that.
        """
        without, with_prompt = predict(condition.cat([unconditional, condition])).chunk(2)
        return without + scale * (with_prompt - without)

    def with_guidance(self, condition: Condition, scale: float) -> Condition:
        """The condition with this scale of guidance, for a family that embeds guidance."""
        return replace(condition, guidance=condition.tokens.new_full((len(condition),), scale))

    def sized(self, condition: Condition, height: int, width: int) -> Condition:
        """The condition of a picture of this size [px], for a family whose conditions have sizes."""
        return condition

    def loader(self) -> Any:
        """The class of `lora_loader`."""
        import diffusers.loaders

        return getattr(diffusers.loaders, self.lora_loader)

    def stored_layers(self, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A trained LoRA of the denoiser (peft's names) as the family's file names its layers."""
        from diffusers.utils import convert_state_dict_to_diffusers

        return dict(convert_state_dict_to_diffusers(dict(layers)))

    def sides(self, denoiser: Any) -> tuple[int, int]:
        """(step, most): the sides of the latents of a picture are multiples of step, and at most `most`."""
        return 1, 1 << 14

    @abstractmethod
    def conditioner(
        self, parts: Mapping[str, Any], flags: Mapping[str, bool], resolution: int | None = None
    ) -> Conditioner:
        """From all parts of a model by name. flags: see `Family.flags`, all of them. resolution: see
        `Defaults`."""

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
