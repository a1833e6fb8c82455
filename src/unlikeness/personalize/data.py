"""What a personalization learns from, encoded once: views of the subject, and pictures of its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.errors import UsageError
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject
from unlikeness.viewing import at_side

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress

__all__ = ["MIXES", "Data", "class_prior", "mixed", "prepare"]

MIXES = ("none", "one", "half", "all-but-one")
"""How many of an attacker's pictures are clean."""


@dataclass(frozen=True)
class Data:
    """Latent posteriors of everything that is trained on.

    subject: [V · N] views, view v of picture i at v · N + i; count: N.
    prior: [K] class pictures, or None without prior preservation.
    """

    subject: Posterior
    count: int
    prior: Posterior | None

    def draw(self, index: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The z0 of step `index`: (subject [B, C, h, w], class [B, C, h, w] or None).

        The subject's pictures follow one another, each in a view drawn at random; class pictures are drawn at
        random.
        """
        pictures = (index * batch_size + torch.arange(batch_size)) % self.count
        views = torch.randint(len(self.subject) // self.count, (batch_size,), generator=generator)
        z0 = self.subject[(views * self.count + pictures).to(self.subject.mean.device)].sample(generator)
        if self.prior is None:
            return z0, None
        which = torch.randint(len(self.prior), (batch_size,), generator=generator)
        return z0, self.prior[which.to(self.prior.mean.device)].sample(generator)


def prepare(
    model: TextToImage,
    subject: Subject,
    settings: PersonalizeSettings,
    *,
    prior: Posterior | None = None,
    progress: Progress | None = None,
) -> Data:
    """Encode the subject's views, and draw and encode the class pictures unless `prior` brings them."""
    views = _views(at_side(subject.images, model.resolution), settings)
    if not settings.prior_weight:
        prior = None
    elif prior is None and settings.class_images:
        prior = class_prior(model, subject.class_prompt, settings, progress=progress)
    return Data(model.encode_all(views), len(subject.images), prior)


def class_prior(
    model: TextToImage,
    class_prompt: str,
    settings: PersonalizeSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Posterior:
    """Class pictures that the model under attack draws itself, as latent posteriors [class_images].

    They pass through eight bits, as the files of an attacker would. They depend on the model, the prompt and
    the class settings only, so that several personalizations of one model can share them.
    """
    settings = settings or PersonalizeSettings()
    images = model.generate(
        [class_prompt],
        seeds=range(settings.class_seed, settings.class_seed + settings.class_images),
        steps=settings.class_steps,
        guidance=settings.class_guidance,
        progress=progress,
    )
    return model.encode_all((images * 255).round() / 255)


def mixed(protected: Tensor, clean: Tensor, how: str) -> Tensor:
    """[N, 3, H, W]: the protected pictures, with the first ones replaced by as many clean ones.

    how: one of `MIXES`. UsageError for another, and if there are too few clean pictures.
    """
    if how not in MIXES:
        raise UsageError(f"a mix {how!r} is unknown; valid are: {', '.join(MIXES)}")
    total = len(protected)
    count = dict(zip(MIXES, (0, 1, total // 2, total - 1), strict=True))[how]
    if len(clean) < count:
        raise UsageError(f"a mix {how} of {total} needs {count} clean pictures, and there are {len(clean)}")
    return torch.cat([at_side(clean[:count], protected.shape[-1]), protected[count:]])


def _views(images: Tensor, settings: PersonalizeSettings) -> Tensor:
    """[V · N, 3, H, W]: the pictures, or random square crops of them, and their mirror images."""
    views = [images]
    if settings.crop < 1:
        size = images.shape[-1]
        generator = step_generator(settings.seed, -1)
        views = []
        for _ in range(settings.views):
            cropped = []
            for image in images:
                share, down, right = torch.rand(3, generator=generator).tolist()
                side = max(round(size * (settings.crop + (1 - settings.crop) * share)), 1)
                top, left = round((size - side) * down), round((size - side) * right)
                cropped.append(at_side(image[None, :, top : top + side, left : left + side], size))
            views.append(torch.cat(cropped))
    if settings.flip:
        views += [view.flip(-1) for view in views]
    return torch.cat(views)
