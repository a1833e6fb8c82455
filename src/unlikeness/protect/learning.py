"""What methods share that follow a model while it learns the subject by DreamBooth.

A method says in `run` when the model learns and when the pictures move.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from unlikeness.diffusion.lora import merged_copy
from unlikeness.personalize.data import Data, prepare
from unlikeness.personalize.objective import PersonalizationStep
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.progress import Silent
from unlikeness.protect.base import OnStep
from unlikeness.protect.published import LearningSettings
from unlikeness.protect.settings import PgdSettings
from unlikeness.protect.surrogates import frozen
from unlikeness.protect.together import Ascent, TogetherProtection
from unlikeness.seeds import derive, picture_generators
from unlikeness.subjects import Subject
from unlikeness.training import adamw, train

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Learner", "LearningProtection", "Run"]

S = TypeVar("S", bound=LearningSettings)


class Learner:
    """The one copy of the model that learns the subject, in float32 at least."""

    def __init__(self, model: TextToImage, subject: Subject, settings: LearningSettings) -> None:
        self.subject = subject
        self.settings = PersonalizeSettings(
            learning_rate=settings.learning_rate, batch_size=settings.batch_size,
            prior_weight=settings.prior_weight,
        )  # fmt: skip
        self.model = merged_copy(model).widen()
        self.parameters: list[Tensor] = list(self.model.denoiser.requires_grad_(True).parameters())

    def learn(
        self, material: Data, steps: int, first: int, seed: int, after: Callable[[int, float], None]
    ) -> None:
        """`steps` DreamBooth steps with a fresh AdamW. first: index of the first, for the pictures' order."""
        s = self.settings
        step = PersonalizationStep(self.model, self.subject, material, s)
        train(
            lambda index, generator: step(first + index, generator), steps=steps,
            optimizer=adamw(self.parameters, lr=s.learning_rate, weight_decay=s.weight_decay),
            parameters=self.parameters, seed=seed, clip=s.clip, description="the surrogate",
            after=after,
        )  # fmt: skip

    @contextmanager
    def thrown_away(self) -> Iterator[None]:
        """The weights are put back in place afterwards."""
        kept = [p.detach().clone() for p in self.parameters]
        try:
            yield
        finally:
            with torch.no_grad():
                for value, p in zip(kept, self.parameters, strict=True):
                    p.copy_(value)


class Run:
    """One subject that is being protected: the model that learns it, and its pictures `current`.

    seed: of the trainings. seeds: of the pictures' own draws.
    """

    def __init__(
        self, protection: LearningProtection[Any], subject: Subject, seeds: Sequence[int], seed: int,
        prior: Posterior | None, on_step: OnStep | None,
    ) -> None:  # fmt: skip
        s = protection.settings
        self.model, self.subject, self.seeds, self.seed = protection.model, subject, seeds, seed
        self.learner = Learner(self.model, subject, s)
        pgd = PgdSettings(budget=s.budget, steps=s.pgd_steps, step_size=s.step_size, random_start=False)
        self.ascent: Ascent = protection.ascent(self.learner.model, pgd, subject.instance_prompt)
        self.generators = picture_generators(seeds)
        self.original = subject.images.detach().to(protection.device)
        self.current = self.original
        self._prior, self._on_step, self._done = prior, on_step, 0

    @cached_property
    def clean(self) -> Data:
        """What the learner learns from the clean pictures and of the class."""
        drawn = _Counted(self._tell)
        return prepare(self.model, self.subject, self.learner.settings, prior=self._prior, progress=drawn)

    def _tell(self, *_: float) -> None:
        self._done += 1
        if self._on_step is not None:
            self._on_step(self._done)

    def start_again(self) -> None:
        """The learner has the model's own weights."""
        fresh = merged_copy(self.model).widen().denoiser.parameters()
        with torch.no_grad():
            for value, p in zip(fresh, self.learner.parameters, strict=True):
                p.copy_(value)

    def learn_clean(self, steps: int, number: int) -> None:
        """Steps on the clean pictures. number: of such calls before; draws depend on it alone."""
        seed = derive(self.seed, "clean", number)
        self.learner.learn(self.clean, steps, number * steps, seed, self._tell)

    def learn_perturbed(self, steps: int, number: int) -> None:
        """Steps on the pictures as they are now. number: see `learn_clean`."""
        if steps:
            # Of all latents, only these have changed.
            now = replace(self.subject, images=self.current)
            seen = prepare(self.model, now, self.learner.settings, prior=self.clean.prior)
            seed = derive(self.seed, "perturbed", number)
            self.learner.learn(seen, steps, number * steps, seed, self._tell)

    def ascend(self, steps: int) -> None:
        """Gradient steps on the pictures, against the learner as it is now."""
        with frozen(*self.learner.model.networks):
            for _ in range(steps):
                self.current = self.ascent.move(self.current, self.original, self.generators)
                self._tell()


class _Counted(Silent):
    """Calls `tell` for each unit."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def advance(self, n: int = 1, **figures: float) -> None:
        for _ in range(n):
            self._tell()


class LearningProtection(TogetherProtection[S]):
    """A protection of a subject against a model that learns it.

    Unlike the papers, which learn from further clean pictures and train the text encoder too, the clean
    pictures are the protected ones, and only the denoiser is trained.
    """

    @abstractmethod
    def run(self, run: Run) -> None:
        """Move `run.current` by `run.ascend`, while `run.learn_clean` and `run.learn_perturbed` train."""

    @abstractmethod
    def work(self) -> tuple[int, int]:
        """(gradient steps on the pictures, training steps) of a run."""

    def ascent(self, learner: TextToImage, pgd: PgdSettings, prompt: str) -> Ascent:
        """What moves the pictures."""
        return Ascent(learner, pgd, prompt)

    @property
    def prompt(self) -> str:
        """The instance prompt."""
        return self._subject(torch.zeros(1, 3, 1, 1)).instance_prompt

    def _subject(self, images: Tensor) -> Subject:
        return Subject(images, self.settings.class_noun, self.settings.identifier)

    def protected(self, images: Tensor, seeds: Sequence[int], on_step: OnStep | None) -> Tensor:
        """See `TogetherProtection.protected`."""
        return self._perturbed(self._subject(images), seeds, derive(0, *seeds), None, on_step)

    def perturb_subject(
        self, subject: Subject, seed: int, prior: Posterior | None = None, on_step: OnStep | None = None
    ) -> Tensor:
        """The subject's pictures, protected, under its own prompt.

        Args:
            seed: of everything that is drawn; with the subject and the prior it decides the result.
            prior: class pictures from `personalize.data.class_prior`, drawn now if not given.
            on_step: called with 1, 2, ... after each class picture, training step and gradient step.

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
        on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        self.surrogates.check_prompt(subject.instance_prompt)
        run = Run(self, subject, seeds, seed, prior, on_step)
        model = run.learner.model
        with frozen(*(network for network in model.networks if network is not model.denoiser)):
            self.run(run)
        return run.current.to(subject.images.device)

    @property
    def steps(self) -> int:
        """See `TogetherProtection.steps`: class pictures, training steps and gradient steps."""
        return sum(self.work()) + self._drawn

    def passes(self, count: int) -> float:
        """See `TogetherProtection.passes`."""
        moves, trained = self.work()
        solver = PersonalizeSettings().class_steps or self.model.defaults.steps
        # A drawing step has two forward passes and no backward pass: about two thirds of a gradient step.
        return count * moves + 2 * self.settings.batch_size * trained + self._drawn * solver * 2 / 3

    @property
    def _drawn(self) -> int:
        """Class pictures, unless they are given."""
        return PersonalizeSettings().class_images if self.settings.prior_weight and self.work()[1] else 0
