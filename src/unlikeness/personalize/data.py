"""What a personalization learns from, encoded once: views of the subject, and pictures of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.errors import UsageError
from unlikeness.personalize.fitting import fitted, step_of
from unlikeness.personalize.settings import PersonalizeSettings, TrainerSettings
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject
from unlikeness.viewing import at_side, at_size

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
    numbers: which of all the subject's pictures these are; () for all in their order.
    others: further buckets, of pictures of another size. Their prior is not used.
    """

    subject: Posterior
    count: int
    prior: Posterior | None
    numbers: tuple[int, ...] = ()
    others: tuple[Data, ...] = ()

    def draw(self, index: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The z0 of step `index`: (subject [B, C, h, w], class [B, C, h, w] or None).

        The subject's pictures follow one another, bucket by bucket, each in a view drawn at random; class
        pictures are drawn at random.
        """
        bucket, pictures = self._at(index, batch_size)
        subject = bucket.subject
        views = torch.randint(len(subject) // bucket.count, (batch_size,), generator=generator)
        z0 = subject[(views * bucket.count + pictures).to(subject.mean.device)].sample(generator)
        if self.prior is None:
            return z0, None
        which = torch.randint(len(self.prior), (batch_size,), generator=generator)
        return z0, self.prior[which.to(self.prior.mean.device)].sample(generator)

    def pictures(self, index: int, batch_size: int) -> list[int]:
        """Which of the subject's pictures step `index` draws."""
        bucket, pictures = self._at(index, batch_size)
        return [bucket.numbers[i] if bucket.numbers else i for i in pictures.tolist()]

    def _at(self, index: int, batch_size: int) -> tuple[Data, Tensor]:
        """The bucket of step `index`, and the places of its pictures there. A round has as many batches of
        each bucket as its pictures fill."""
        buckets = (self, *self.others)
        batches = [-(-one.count // batch_size) for one in buckets] if self.others else [1]
        rounds, place = divmod(index, sum(batches))
        which = 0
        while place >= batches[which]:
            place -= batches[which]
            which += 1
        bucket, at = buckets[which], rounds * batches[which] + place
        return bucket, (at * batch_size + torch.arange(batch_size)) % bucket.count


def prepare(
    model: TextToImage,
    subject: Subject,
    settings: PersonalizeSettings,
    *,
    prior: Posterior | None = None,
    progress: Progress | None = None,
) -> Data:
    """Encode the subject's views, and draw and encode the class pictures unless `prior` brings them."""
    if not settings.prior_weight:
        prior = None
    elif prior is None and settings.class_images:
        prior = class_prior(model, subject.class_prompt, settings, progress=progress)
    buckets: dict[tuple[int, ...], list[int]] = {}
    pictures = _fitted(model, subject, settings)
    for i, picture in enumerate(pictures):
        buckets.setdefault(() if _crops(settings) else tuple(picture.shape), []).append(i)
    if prior is not None:
        prior = _kept(prior, settings, -3)
    made = []
    for places in buckets.values():
        views = _views([pictures[i] for i in places], settings, model.resolution)
        numbers = tuple(places) if len(buckets) > 1 else ()
        made.append(Data(_kept(model.encode_all(views), settings, -2), len(places), prior, numbers))
    return replace(made[0], others=tuple(made[1:]))


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


def _fitted(model: TextToImage, subject: Subject, settings: PersonalizeSettings) -> list[Tensor]:
    """The subject's pictures [3, h, w], each as the trainer fits it."""
    s = settings
    if not isinstance(s, TrainerSettings) or not s.fits:
        return list(at_side(subject.images, model.resolution))
    unit = model.autoencoder.factor * model.family.sides(model.denoiser)[0]
    step = step_of(model.resolution, unit)
    whole = subject.whole or tuple((subject.images.cpu() * 255).round().to(torch.uint8))
    return [fitted(one, model.resolution, step, fit=s.fit, filter=s.filter) for one in whole]


def _crops(settings: PersonalizeSettings) -> bool:
    return isinstance(settings, TrainerSettings) and settings.fit == "crop"


def _kept(posterior: Posterior, settings: PersonalizeSettings, draw: int) -> Posterior:
    """The posterior as the trainer keeps it: whole, one sample of it, or its mean."""
    how = settings.posterior if isinstance(settings, TrainerSettings) else "sample"
    if how == "sample":
        return posterior
    mean = posterior.mean if how == "mean" else posterior.sample(step_generator(settings.seed, draw))
    return Posterior(mean, torch.zeros_like(mean))


def _views(pictures: Sequence[Tensor], settings: PersonalizeSettings, side: int) -> Tensor:
    """[V · N, 3, H, W]: the pictures, or random crops of them, and their mirror images.

    Pictures that were not resized give random squares of `side` px; others of one size crops of a share.
    """
    generator = step_generator(settings.seed, -1)
    views = []
    for _ in range(settings.views if _crops(settings) or settings.crop < 1 else 0):
        cut = []
        for one in pictures:
            height, width = one.shape[1:]
            share, down, right = torch.rand(3, generator=generator).tolist()
            part = settings.crop + (1 - settings.crop) * share
            h, w = (side, side) if _crops(settings) else (max(round(n * part), 1) for n in (height, width))
            top, left = round((height - h) * down), round((width - w) * right)
            square = one[None, :, top : top + h, left : left + w]
            cut.append(square if _crops(settings) else at_size(square, (height, width)))
        views.append(torch.cat(cut))
    views = views or [torch.stack(list(pictures))]
    if settings.flip:
        views += [view.flip(-1) for view in views]
    return torch.cat(views)
