"""What an immunization learns from, encoded once: a subject's pictures, its pairs, its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.errors import UsageError
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.personalize.material import Material, class_prior, prepare
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.progress import Progress
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import Subject

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Kept", "class_settings", "keep", "manifest"]


@dataclass(frozen=True)
class Kept:
    """A protected subject, as latents.

    material: what its attacker would learn from (x⁻, and class pictures).
    generic: [N] generic pictures x⁺ that φ drew from the class prompt; row i is paired with picture i.
    prior: [K] class pictures, which hold the generic ones first.
    """

    subject: Subject
    material: Material
    prior: Posterior

    @property
    def generic(self) -> Posterior:
        return self.prior[: self.material.count]


def class_settings(settings: ImmunizeSettings) -> PersonalizeSettings:
    """How the original model draws class pictures, in the words of `personalize`."""
    return PersonalizeSettings(
        class_images=settings.class_images, class_steps=settings.class_steps, class_seed=settings.class_seed
    )


def keep(
    model: TextToImage,
    subjects: Sequence[Subject],
    settings: ImmunizeSettings,
    *,
    priors: Mapping[str, Posterior] | None = None,
    progress: Progress | None = None,
) -> list[Kept]:
    """Encode all subjects, and draw the pictures of each class noun once.

    priors: by class noun, class pictures from `personalize.material.class_prior`, instead of drawing them.

    Raises:
        UsageError: no subject; a prompt that the model cannot read to its end; fewer class pictures than a
            subject has pictures, so that they cannot be paired one to one.
    """
    if not subjects:
        raise UsageError("there is no subject to protect; give a folder of pictures and a class noun")
    drawn = dict(priors or {})
    how = class_settings(settings)
    kept = []
    for subject in subjects:
        if reason := model.conditioner.too_long(subject.instance_prompt):
            raise UsageError(reason)
        noun = subject.class_noun
        if noun not in drawn:
            drawn[noun] = class_prior(model, subject.class_prompt, how, progress=progress)
        if len(drawn[noun]) < len(subject.images):
            raise UsageError(
                f"{len(drawn[noun])} class pictures for {len(subject.images)} of {subject.instance_name} "
                "cannot be paired one to one; raise class_images"
            )
        kept.append(Kept(subject, prepare(model, subject, how, prior=drawn[noun]), drawn[noun]))
    return kept


def manifest(subject: Subject, settings: ImmunizeSettings) -> list[dict[str, Any]]:
    """Which generic picture belongs to which of the subject's: the latter by the digest of its pixels."""
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
