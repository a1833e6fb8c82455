"""The attacks that are measured: their settings for the toybox, and class pictures drawn once per noun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from unlikeness import personalize
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.latents import Posterior
from unlikeness.personalize.material import class_prior
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.subjects import Subject, with_article

COMMON: dict[str, Any] = {"batch_size": 4, "class_images": 100}
"""On top of the published settings: the toybox is small, and learns from more pictures a step."""

GRID: dict[str, list[dict[str, Any]]] = {
    "dreambooth": [
        {"learning_rate": 1e-4, "steps": 800},
        {"learning_rate": 3e-4, "steps": 400},
        {"learning_rate": 3e-4, "steps": 800},
        {"learning_rate": 6e-4, "steps": 800},
    ],
    "lora": [
        {"rank": 16, "learning_rate": 1e-3, "steps": 800},
        {"rank": 16, "learning_rate": 3e-3, "steps": 800},
        {"rank": 32, "learning_rate": 3e-3, "steps": 800},
    ],
}
"""What is tried on the tuning subjects."""

QUICK: dict[str, list[dict[str, Any]]] = {
    "dreambooth": [{"learning_rate": 3e-4, "steps": 2}, {"learning_rate": 3e-4, "steps": 3}],
    "lora": [{"rank": 4, "learning_rate": 1e-3, "steps": 2}],
}
QUICK_COMMON: dict[str, Any] = {"batch_size": 1, "class_images": 2, "class_steps": 2}


class Priors:
    """Class pictures that the model under attack draws: once per class noun, kept in `folder`."""

    def __init__(self, model: TextToImage, folder: Path, settings: PersonalizeSettings) -> None:
        self.model = model
        self.folder = folder
        self.settings = settings

    def of(self, class_noun: str) -> Posterior:
        s = self.settings
        file = self.folder / f"prior-{class_noun}-{s.class_images}-{s.class_steps}-{s.class_seed}.safetensors"
        if not file.exists():
            drawn = class_prior(self.model, f"a photo of {with_article(class_noun)}", s)
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            save_file({"mean": drawn.mean.cpu().contiguous(), "std": drawn.std.cpu().contiguous()}, part)
            part.replace(file)
        kept = load_file(file)
        return Posterior(kept["mean"].to(self.model.device), kept["std"].to(self.model.device))


def attack(
    model: TextToImage,
    subject: Subject,
    method: str,
    settings: Mapping[str, Any],
    *,
    priors: Priors,
    checkpoint: Path,
) -> TextToImage:
    """Personalize; an interrupted training goes on from `checkpoint`, which is removed at the end."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    tuned = personalize.personalize(
        model, subject, method, settings, prior=priors.of(subject.class_noun), checkpoint=checkpoint
    )
    checkpoint.unlink(missing_ok=True)
    return tuned


def full_settings(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a run, defaults included, for the record. UsageError for a wrong one."""
    return asdict(personalize.create(method, settings).settings)
