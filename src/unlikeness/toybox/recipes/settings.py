"""Settings of the trainings of `unlikeness toybox train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.settings import Checked, named, setting
from unlikeness.toybox.world import SIZE

__all__ = [
    "VAE_SCALE", "ClassifierRecipe", "EvaluatorRecipe", "IdentityRecipe", "ModelRecipe", "VaeRecipe",
    "checkpoint_of",
]  # fmt: skip

VAE_SCALE = 4
"""Pixels per latent along a side."""


@dataclass(frozen=True, kw_only=True)
class EvaluatorRecipe(Checked):
    """What the recipes of both evaluators share."""

    steps: int = setting(1500, "optimizer steps", at_least=1)
    learning_rate: float = setting(2e-3, "peak of AdamW's learning rate; cosine to zero", at_least=1e-9)
    seed: int = setting(0, "of renders, weights and disturbances", at_least=0, at_most=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class IdentityRecipe(EvaluatorRecipe):
    """How the shipped encoder was trained."""

    members: int = setting(48, "individuals a step, all of one class, two views each", at_least=2)
    temperature: float = setting(0.1, "of the softmax over cosines", at_least=1e-3)
    individuals: int = setting(4800, "individuals to train on, of all classes in turn", at_least=12)
    seed: int = setting(4, "of renders, weights and disturbances", at_least=0, at_most=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(EvaluatorRecipe):
    """How the shipped classifier was trained."""

    batch_size: int = setting(64, "pictures a step", at_least=1)
    pictures: int = setting(20_000, "renders to train on", at_least=1)
    seed: int = setting(3, "of renders, weights and disturbances", at_least=0, at_most=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class VaeRecipe(Checked):
    """How the shipped autoencoder was trained."""

    steps: int = setting(12_000, "optimizer steps", at_least=1)
    crops: int = setting(16, "crops a step", at_least=1)
    crop_size: int = setting(32, "side of the crops", unit="px", at_least=8, at_most=SIZE)
    whole_share: float = setting(
        0.15, "share of the steps, at the end, on whole pictures instead", at_least=0, at_most=1
    )
    learning_rate: float = setting(2e-3, "peak of AdamW's learning rate; cosine to zero", at_least=1e-9)
    pictures: int = setting(60_000, "renders to train on", at_least=1)
    absolute_weight: float = setting(0.02, "weight of the L1 term beside the squared error", at_least=0)
    kl_weight: float = setting(1e-4, "weight of the KL term, mean over latent elements", at_least=0)
    seed: int = setting(1, "of renders, weights and noise", at_least=0, at_most=2**63 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_size % VAE_SCALE:
            raise UsageError(
                f"{named('crop_size')} must be a multiple of {VAE_SCALE} px, not {self.crop_size}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelRecipe(Checked):
    """How the shipped model was trained."""

    steps: int = setting(16_000, "optimizer steps", at_least=1)
    batch_size: int = setting(32, "pictures a step", at_least=1)
    learning_rate: float = setting(
        8e-4, "AdamW's learning rate: warm-up, constant, linear to zero", at_least=1e-9
    )
    fall: float = setting(0.25, "share of the steps, at the end, of that decline", at_least=0, at_most=1)
    pictures: int = setting(120_000, "renders to train on", at_least=1)
    caption_dropout: float = setting(0.1, "share of pictures without a caption", at_least=0, at_most=1)
    average: float = setting(
        0.999, "decay of the weights' average, which is what is kept", at_least=0, at_most=0.99999
    )
    seed: int = setting(2, "of renders, weights and noise", at_least=0, at_most=2**63 - 1)


def checkpoint_of(work: Path, name: str) -> Path:
    """The checkpoint of an evaluator's training, under a name that no weights have."""
    return work / f"{name}.checkpoint.safetensors"
