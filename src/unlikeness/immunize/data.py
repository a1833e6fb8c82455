"""What an immunization learns from, encoded once: subjects, generic pictures, pictures of other prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.errors import UsageError
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.personalize.data import Data, class_prior, prepare
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.progress import Progress
from unlikeness.provenance import pixel_digest
from unlikeness.settings import named
from unlikeness.subjects import Subject

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = [
    "ProtectedSubject", "class_settings", "draw_general", "manifest", "pick", "protected_subjects",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class ProtectedSubject:
    """A subject as latents.

    data: what an attacker would learn from: pictures x⁻ of the subject, and class pictures. prior: [K] class
    pictures from the original model; the first ones are generic pictures, paired with the subject's.
    """

    subject: Subject
    data: Data
    prior: Posterior

    def own(self, count: int, generator: torch.Generator) -> Tensor:
        """z0 of random pictures of the subject."""
        which = torch.randint(self.data.count, (count,), generator=generator)
        return pick(self.data.subject, which, generator)

    def members(self, count: int, generator: torch.Generator) -> Tensor:
        """z0 of random class pictures."""
        which = torch.randint(len(self.prior), (count,), generator=generator)
        return pick(self.prior, which, generator)

    def pairs(self, count: int, generator: torch.Generator, *, paired: bool) -> Tensor:
        """z0 of `count` generic pictures x⁺, then of as many of the subject; paired: each with its own."""
        pictures = self.data.count
        which = torch.randint(pictures, (count,), generator=generator)
        partner = which if paired else torch.randint(pictures, (count,), generator=generator)
        return torch.cat([pick(self.prior, partner, generator), pick(self.data.subject, which, generator)])


def class_settings(settings: ImmunizeSettings) -> PersonalizeSettings:
    """How the original model draws class pictures, as settings of `personalize`."""
    return PersonalizeSettings(
        class_images=settings.class_images, class_steps=settings.class_steps, class_seed=settings.class_seed
    )


def protected_subjects(
    model: TextToImage,
    subjects: Sequence[Subject],
    settings: ImmunizeSettings,
    *,
    priors: Mapping[str, Posterior] | None = None,
    progress: Progress | None = None,
) -> list[ProtectedSubject]:
    """Encode all subjects, and draw the pictures of each class noun once.

    priors: class pictures by class noun (`personalize.data.class_prior`), used instead of drawing them.

    Raises:
        UsageError: no subject; a prompt that is too long for the model; fewer class pictures than a subject
            has pictures, so that they cannot be paired.
    """
    if not subjects:
        raise UsageError("there is no subject to protect; give a folder of pictures and a class noun")
    drawn = dict(priors or {})
    how = class_settings(settings)
    found = []
    for subject in subjects:
        if reason := model.conditioner.too_long(subject.instance_prompt):
            raise UsageError(reason)
        noun = subject.class_noun
        if noun not in drawn:
            drawn[noun] = class_prior(model, subject.class_prompt, how, progress=progress)
        if len(drawn[noun]) < len(subject.images):
            raise UsageError(
                f"{len(drawn[noun])} class pictures for {len(subject.images)} of {subject.instance_name} "
                f"cannot be paired one to one; raise {named('class_images')}"
            )
        data = prepare(model, subject, how, prior=drawn[noun])
        found.append(ProtectedSubject(subject, data, drawn[noun]))
    return found


def draw_general(
    model: TextToImage, prompts: Sequence[str], *, seed: int, steps: int | None,
    progress: Progress | None = None,
) -> Posterior:  # fmt: skip
    """One encoded picture for each prompt, drawn by `model`: [K]. UsageError if a prompt is too long."""
    for prompt in prompts:
        if reason := model.conditioner.too_long(prompt):
            raise UsageError(reason)
    images = model.generate(prompts, seeds=range(seed, seed + len(prompts)), steps=steps, progress=progress)
    return model.encode_all((images * 255).round() / 255)


def manifest(subject: Subject, settings: ImmunizeSettings) -> list[dict[str, Any]]:
    """Which generic picture is paired with which picture of the subject, the latter as a digest."""
    return [
        {
            "picture_sha256": pixel_digest(image),
            "generic_prompt": subject.class_prompt,
            "generic_seed": settings.class_seed + i,
        }
        for i, image in enumerate(subject.images)
    ]


def pick(posterior: Posterior, which: Tensor, generator: torch.Generator) -> Tensor:
    """Samples z0 of the pictures with these indices."""
    return posterior[which.to(posterior.mean.device)].sample(generator)
