"""ASPL: perturb a subject's pictures against a model that is learning them.

Anti-DreamBooth (Van Le et al. 2023, arXiv 2303.15433), Algorithm 1. Each round, with a learner θ that starts
as the model itself:

    θ' <- a copy of θ, trained for a few DreamBooth steps on the clean pictures
    δ  <- PGD steps that raise L_diff(x + δ, c_V) under θ', |δ| <= budget
    θ  <- trained for a few DreamBooth steps on the perturbed pictures x + δ
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness import finite
from unlikeness.diffusion.lora import merged_copy
from unlikeness.errors import UsageError
from unlikeness.personalize.data import Data, prepare
from unlikeness.personalize.objective import PersonalizationStep
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.protect.base import GradientProtection, check_batch
from unlikeness.protect.settings import AsplSettings, PgdSettings
from unlikeness.protect.surrogates import Models, Surrogate, Surrogates, frozen
from unlikeness.protect.tiling.batches import default_batch_size
from unlikeness.seeds import derive, picture_generators
from unlikeness.subjects import Subject
from unlikeness.training import adamw, train

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Aspl", "AsplSettings"]


class Aspl:
    """Raises the loss of a copy of the model that learns the subject at the same time (Anti-DreamBooth).

    All pictures of a run are one subject's. A picture's perturbation depends on all of them and on their
    order, unlike with the other methods. Unlike the paper, which learns from further clean pictures (its set
    A) and trains the text encoder too, the clean pictures are the protected ones, and only the denoiser is
    trained.

    Args:
        models: the model that personalization would start from; it is never changed.
    """

    settings_type: ClassVar[type[AsplSettings]] = AsplSettings
    needs_model: ClassVar[bool] = True

    def __init__(self, models: Models, settings: AsplSettings | None = None) -> None:
        self.surrogates = Surrogates.of(models)
        if len(self.surrogates) != 1:
            raise UsageError(f"aspl computes against one model, not {len(self.surrogates)}; give one")
        self.model: TextToImage = self.surrogates[0].whole
        self.settings = settings or AsplSettings()
        self.resolution = self.surrogates.resolution
        self.device, self.dtype = self.surrogates.device, self.surrogates.dtype
        self.against = self.surrogates.against
        s = self.settings
        subject = Subject(torch.zeros(1, 3, 1, 1), s.class_noun, s.identifier)
        self.surrogates.check_prompt(subject.instance_prompt)
        self._images: dict[int, Tensor] = {}
        self._deltas: dict[int, Tensor] = {}

    @property
    def fingerprint(self) -> str:
        """Of the model, and of the subject's pictures once they are known."""
        digest = hashlib.sha256(repr(list(self._images)).encode())
        for image in self._images.values():
            digest.update(image.numpy().tobytes())
        return self.surrogates.fingerprint + (f" {digest.hexdigest()[:16]}" if self._images else "")

    def together(self, images: Sequence[Tensor], seeds: Sequence[int]) -> None:
        """Take these squares [3, T, T] of any sides as the subject's pictures, by their seeds."""
        self._images, self._deltas = dict(zip(seeds, images, strict=True)), {}

    def perturb(
        self, images: Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """See `Perturber.perturb`. Without `together`, the batch is the whole subject."""
        check_batch(images, seeds)
        if not set(seeds) <= set(self._images):
            self.together(list(images), seeds)
        if not self._deltas:
            side = max(image.shape[-1] for image in self._images.values())
            stack = torch.cat([_square(image, side) for image in self._images.values()])
            s = self.settings
            subject = Subject(stack, s.class_noun, s.identifier)
            found = self._perturbed(subject, list(self._images), derive(0, *self._images), None, on_step)
            self._deltas = dict(zip(self._images, found - stack, strict=True))
        delta = torch.cat([_square(self._deltas[seed], images.shape[-1]) for seed in seeds])
        return (images + delta.to(images)).clamp(0, 1)

    def perturb_subject(
        self, subject: Subject, seed: int, prior: Posterior | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """The subject's pictures, protected.

        Args:
            seed: of everything that is drawn; with the subject and the prior it decides the result.
            prior: class pictures from `personalize.data.class_prior`, drawn now if not given.
            on_step: called with 1, 2, ... after each gradient step, rounds · pgd_steps in all.

        Returns:
            [N, 3, H, W] in [0, 1], nowhere further from `subject.images` than the budget; same device.

        Raises:
            UsageError: the model does not read the whole prompt of the subject.
            NotFiniteError: the training diverged, or the model's answer is NaN or infinite.
        """
        seeds = [derive(seed, "picture", i) for i in range(len(subject.images))]
        return self._perturbed(subject, seeds, seed, prior, on_step)

    @torch.enable_grad()
    def _perturbed(
        self, subject: Subject, seeds: Sequence[int], seed: int, prior: Posterior | None,
        on_step: Callable[[int], None] | None,
    ) -> Tensor:  # fmt: skip
        """Algorithm 1. seeds: of the pictures' own draws; seed: of the trainings."""
        s = self.settings
        self.surrogates.check_prompt(subject.instance_prompt)
        learner = _Learner(self.model, subject, s)
        clean = prepare(self.model, subject, learner.settings, prior=prior)
        pgd = PgdSettings(budget=s.budget, steps=s.pgd_steps, step_size=s.step_size, random_start=False)
        ascent = _Ascent(learner.model, pgd, subject.instance_prompt)
        generators = picture_generators(seeds)
        original = subject.images.detach().to(self.device)
        current = original
        still = (n for n in learner.model.networks if n is not learner.model.denoiser)
        with frozen(*still):
            for k in range(s.rounds):
                with learner.thrown_away():
                    learner.learn(clean, s.clean_steps, k, derive(seed, "clean", k))
                    with frozen(learner.model.denoiser):
                        for j in range(s.pgd_steps):
                            current = ascent.move(current, original, generators)
                            if on_step is not None:
                                on_step(k * s.pgd_steps + j + 1)
                if s.perturbed_steps:
                    # Of all latents, only these have changed.
                    perturbed = prepare(
                        self.model, replace(subject, images=current), learner.settings, prior=clean.prior
                    )
                    learner.learn(perturbed, s.perturbed_steps, k, derive(seed, "perturbed", k))
        return current.to(subject.images.device)

    def seconds(self, side: int, count: int) -> float:
        """An estimate for `count` squares of `side` px, from a few gradient steps on one."""
        s = self.settings
        image = torch.full((1, 3, side, side), 0.5)

        def trial(steps: int) -> float:
            quick = replace(s, rounds=1, clean_steps=0, perturbed_steps=0, pgd_steps=steps, prior_weight=0.0)
            began = time.perf_counter()
            Aspl(self.model, quick).perturb(image, [0])
            return time.perf_counter() - began

        trial(1)  # the first call also sets things up
        step = abs(trial(5) - trial(1)) / 4
        trained = 2 * s.batch_size * (s.clean_steps + s.perturbed_steps)
        attack = PersonalizeSettings()
        solver = attack.class_steps or self.model.defaults.steps
        drawn = attack.class_images * solver if s.prior_weight else 0
        # A drawing step has two forward passes and no backward pass: about two thirds of a gradient step.
        return step * (s.rounds * (count * s.pgd_steps + trained) + drawn * 2 / 3)


def _square(image: Tensor, side: int) -> Tensor:
    """[3, T, T] as [1, 3, side, side]."""
    if image.shape[-1] == side:
        return image[None]
    return F.interpolate(image[None], (side, side), mode="bilinear", align_corners=False, antialias=True)


class _Learner:
    """The one copy of the model that learns the subject, in float32 at least."""

    def __init__(self, model: TextToImage, subject: Subject, settings: AsplSettings) -> None:
        self.subject = subject
        self.settings = PersonalizeSettings(
            learning_rate=settings.learning_rate, batch_size=settings.batch_size,
            prior_weight=settings.prior_weight,
        )  # fmt: skip
        self.model = merged_copy(model).widen()
        self.parameters: list[Tensor] = list(self.model.denoiser.requires_grad_(True).parameters())
        self._kept = [torch.empty_like(p) for p in self.parameters]

    def learn(self, material: Data, steps: int, round_: int, seed: int) -> None:
        """`steps` DreamBooth steps with a fresh AdamW. The order of pictures continues over rounds."""
        s = self.settings
        step = PersonalizationStep(self.model, self.subject, material, s)
        train(
            lambda index, generator: step(round_ * steps + index, generator), steps=steps,
            optimizer=adamw(self.parameters, lr=s.learning_rate, weight_decay=s.weight_decay),
            parameters=self.parameters, seed=seed, clip=s.clip, description="ASPL's surrogate",
        )  # fmt: skip

    @contextmanager
    def thrown_away(self) -> Iterator[None]:
        """The weights are put back in place afterwards."""
        _copy(self.parameters, self._kept)
        try:
            yield
        finally:
            _copy(self._kept, self.parameters)


@torch.no_grad()
def _copy(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    for value, target in zip(values, into, strict=True):
        target.copy_(value)


class _Ascent(GradientProtection[PgdSettings]):
    """Steps on the pictures that raise the learner's diffusion loss under the instance prompt."""

    settings_type = PgdSettings

    def __init__(self, model: TextToImage, settings: PgdSettings, prompt: str) -> None:
        super().__init__(model, settings)
        self._c = self.surrogates.conditions(prompt)
        self._group = default_batch_size(model.resolution, model.device)

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        return surrogate.denoising_loss(images, self._c[surrogate], generators)

    @torch.no_grad()
    def move(self, current: Tensor, original: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """`current` [N, 3, H, W] one step on, a few pictures at a time."""
        moved = []
        for first in range(0, len(current), self._group):
            part = slice(first, first + self._group)
            gradient = self.gradient(current[part], generators[part])
            if not finite.all_finite([gradient]):
                self.check()
                raise finite.not_finite(finite.GRADIENT, self.dtype)
            moved.append(self.project(current[part] + self.step(gradient), original[part]))
        return torch.cat(moved)
