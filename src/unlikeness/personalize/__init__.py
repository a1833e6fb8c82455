"""Model + pictures -> model: what an attacker does, and what a defence is measured against.

    tuned = personalize(model, Subject.from_folder(folder, "dog", size=model.resolution), "dreambooth")
    images = tuned.generate(["a photo of sks dog in the snow"], seeds=range(8))

A new method is a file with a settings class and a class with `personalize`, and one `register` line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unlikeness.personalize.registry import METHODS, Personalizer, create, method

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.personalize.settings import PersonalizeSettings
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

names = METHODS.names
register = METHODS.register

_SETTINGS = "unlikeness.personalize.settings"

register(
    "dreambooth", "unlikeness.personalize.dreambooth:DreamBooth", settings=f"{_SETTINGS}:DreamBoothSettings"
)
register("lora", "unlikeness.personalize.lora:LoRA", settings=f"{_SETTINGS}:LoRASettings")

__all__ = ["Personalizer", "create", "method", "names", "personalize", "register"]


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
        prior: class pictures from `material.class_prior`, to share between runs; drawn now if not given.
        checkpoint: file that an interrupted run goes on from.

    Raises:
        UsageError: an unknown method or setting, or a wrong value.
        UnlikenessError: the training diverged.
    """
    made = create(method, settings) if isinstance(method, str) else method
    return made.personalize(model, subject, prior=prior, checkpoint=checkpoint, progress=progress)
