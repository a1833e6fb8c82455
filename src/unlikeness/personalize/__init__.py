"""Model + pictures -> model: what an attacker does, and what a defence is measured against.

    tuned = personalize(model, Subject.from_folder(folder, "dog", size=model.resolution), "dreambooth")
    images = tuned.generate(["a photo of sks dog in the snow"], seeds=range(8))

A new method is a file with a settings class and a class with `personalize`, and one `register` line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.plugins import Methods

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject


class Personalizer(Protocol):
    """A method: made from its settings, with one verb."""

    @property
    def settings(self) -> PersonalizeSettings: ...

    def personalize(
        self,
        model: TextToImage,
        subject: Subject,
        *,
        prior: Posterior | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> TextToImage:
        """A personalized copy; the model passed in is never changed."""


METHODS: Methods[PersonalizeSettings, Personalizer] = Methods(
    "personalization", "unlikeness.personalize", PersonalizeSettings, ("personalize",)
)
create = METHODS.create
method = METHODS.load
settings_type = METHODS.settings_type
names = METHODS.names
register = METHODS.register

_SETTINGS = "unlikeness.personalize.settings"

register(
    "dreambooth", "unlikeness.personalize.dreambooth:DreamBooth", settings=f"{_SETTINGS}:DreamBoothSettings"
)
register("lora", "unlikeness.personalize.lora:LoRA", settings=f"{_SETTINGS}:LoRASettings")
register("lora_ti", "unlikeness.personalize.lora:LoRATI", settings=f"{_SETTINGS}:LoRATISettings")
register(
    "textual_inversion", "unlikeness.personalize.textual_inversion:TextualInversion",
    settings=f"{_SETTINGS}:TextualInversionSettings",
)  # fmt: skip
register(
    "custom_diffusion", "unlikeness.personalize.custom_diffusion:CustomDiffusion",
    settings=f"{_SETTINGS}:CustomDiffusionSettings",
)  # fmt: skip

__all__ = [
    "METHODS", "Personalizer", "create", "known_as", "method", "names", "personalize", "register",
    "settings_type",
]  # fmt: skip


def personalize(
    model: TextToImage,
    subject: Subject,
    method: str | Personalizer = "dreambooth",
    settings: PersonalizeSettings | Mapping[str, object] | None = None,
    *,
    prior: Posterior | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> TextToImage:
    """A copy of `model` that has learnt `subject`; `model` itself is never changed.

    Args:
        method: a name from `names()`, or a method made by `create`.
        settings: for a name: its settings object, or values by field name.
        prior: class pictures from `data.class_prior`, to share between runs; drawn now if not given.
        checkpoint: file that an interrupted run goes on from.

    Raises:
        UsageError: an unknown method or setting, or a wrong value.
        UnlikenessError: the training diverged.
    """
    made = create(method, settings) if isinstance(method, str) else method
    return made.personalize(model, subject, prior=prior, checkpoint=checkpoint, progress=progress)


def known_as(method: Personalizer, subject: Subject) -> Subject:
    """The subject as prompts for the result name it: `<sks>`, where the method trains a new word."""
    named = getattr(method, "known_as", None)
    known: Subject = subject if named is None else named(subject)
    return known
