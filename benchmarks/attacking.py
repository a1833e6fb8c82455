"""The attacks that are measured: their settings for the toybox, and class pictures drawn once per noun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from benchmarks import common
from unlikeness import personalize
from unlikeness.autoencoders import Posterior
from unlikeness.diffusion import TextToImage
from unlikeness.personalize.data import class_prior
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.subjects import Subject, with_article

CODE = (
    *(f"src/unlikeness/{name}" for name in ("diffusion", "personalize", "measure", "toybox", "training.py")),
    "benchmarks/judging.py",
)
"""The code that decides what an attack yields and how it is judged."""

COMMON: dict[str, Any] = {"batch_size": 4, "class_images": 100}
"""Changes to the published settings: the toybox is small and learns from larger batches."""

GRID: dict[str, list[dict[str, Any]]] = {
    "dreambooth": [
        {"learning_rate": 5e-4, "steps": 200},
        {"learning_rate": 1e-3, "steps": 200},
        {"learning_rate": 5e-4, "steps": 400},
        {"learning_rate": 2e-4, "steps": 400},
    ],
    "lora": [
        {"rank": 16, "learning_rate": 3e-3, "steps": 400},
        {"rank": 32, "learning_rate": 3e-3, "steps": 400},
        {"rank": 32, "learning_rate": 1e-2, "steps": 400},
    ],
}
"""What is tried on the tuning subjects."""

QUICK: dict[str, list[dict[str, Any]]] = {
    "dreambooth": [{"learning_rate": 3e-4, "steps": 2}, {"learning_rate": 3e-4, "steps": 3}],
    "lora": [{"rank": 4, "learning_rate": 1e-3, "steps": 2}],
}
QUICK_COMMON: dict[str, Any] = {"batch_size": 1, "class_images": 2, "class_steps": 2}


class Priors:
    """Class images of the attacked model: drawn once per class noun and settings, for all benchmarks.

    They lie in a folder named by the model's weights and configuration. Two processes may share it: a file is
    written beside its name and renamed.
    """

    def __init__(self, model: TextToImage) -> None:
        self.model = model
        self.folder = common.RUNS / "priors" / common.model_digest(model)

    def of(self, class_noun: str, settings: PersonalizeSettings) -> Posterior | None:
        """The class images for an attack with these settings; None if it uses none."""
        s = settings
        if not (s.class_images and s.prior_weight):
            return None
        own = "" if s.class_guidance is None else f"-guidance-{s.class_guidance:g}"
        name = f"prior-{class_noun}-{s.class_images}-{s.class_steps}-{s.class_seed}{own}.safetensors"
        file = self.folder / name
        if not file.exists():
            drawn = class_prior(self.model, f"a photo of {with_article(class_noun)}", s)
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{name}.{os.getpid()}")
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
    """Personalize. An interrupted training continues from `checkpoint`, which is removed at the end."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    made = personalize.create(method, settings)
    prior = priors.of(subject.class_noun, made.settings)
    tuned = personalize.personalize(model, subject, made, prior=prior, checkpoint=checkpoint)
    checkpoint.unlink(missing_ok=True)
    return tuned


def full_settings(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a run, defaults included, for the record. UsageError for a wrong one."""
    return asdict(personalize.create(method, settings).settings)
