"""What methods share that perturb all pictures of a subject together.

A picture's perturbation depends on all pictures of the run and on their order, unlike with the other methods.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness import finite
from unlikeness.errors import UsageError
from unlikeness.protect.base import GradientProtection, OnStep, check_batch
from unlikeness.protect.settings import PgdSettings, ProtectSettings
from unlikeness.protect.surrogates import Models, Surrogate, Surrogates
from unlikeness.protect.tiling.batches import default_batch_size
from unlikeness.seeds import picture_generators

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Ascent", "TogetherProtection"]

S = TypeVar("S", bound=ProtectSettings)


class Ascent(GradientProtection[PgdSettings]):
    """Steps on the pictures that raise a model's diffusion loss under a prompt.

    part: the pictures of the subject that the objective is being computed for.
    """

    settings_type = PgdSettings

    def __init__(self, model: TextToImage, settings: PgdSettings, prompt: str) -> None:
        super().__init__(model, settings)
        self.c = self.surrogates.conditions(prompt)
        self.part = slice(0, 0)
        self._group = default_batch_size(model.resolution, model.device)

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        return surrogate.denoising_loss(images, self.c[surrogate], generators)

    @torch.no_grad()
    def move(self, current: Tensor, original: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """`current` [N, 3, H, W] one step on, a few pictures at a time."""
        moved = []
        for first in range(0, len(current), self._group):
            self.part = part = slice(first, first + self._group)
            gradient = self.gradient(current[part], generators[part])
            if not finite.all_finite([gradient]):
                self.check()
                raise finite.not_finite(finite.GRADIENT, self.dtype)
            moved.append(self.project(current[part] + self.step(gradient), original[part]))
        return torch.cat(moved)


class TogetherProtection(ABC, Generic[S]):
    """A protection of all pictures of a run, as one subject's, against one model.

    Args:
        models: the model that personalization would start from, one; it is never changed.
    """

    settings_type: ClassVar[type[Any]]
    needs_model: ClassVar[bool] = True

    def __init__(self, models: Models, settings: S | None = None) -> None:
        self.surrogates = Surrogates.of(models)
        if len(self.surrogates) != 1:
            name = type(self).__name__.lower()
            raise UsageError(f"{name} computes against one model, not {len(self.surrogates)}; give one")
        self.model: TextToImage = self.surrogates[0].whole
        self.settings: S = settings or self.settings_type()
        self.resolution = self.surrogates.resolution
        self.device, self.dtype = self.surrogates.device, self.surrogates.dtype
        self.against = self.surrogates.against
        self.surrogates.check_prompt(self.prompt)
        self._images: dict[int, Tensor] = {}
        self._deltas: dict[int, Tensor] = {}

    @property
    @abstractmethod
    def prompt(self) -> str:
        """What the model predicts under."""

    @abstractmethod
    def protected(self, images: Tensor, seeds: Sequence[int], on_step: OnStep | None) -> Tensor:
        """The subject's pictures [N, 3, T, T], perturbed, on any device."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """How often `on_step` is called."""

    @abstractmethod
    def passes(self, count: int) -> float:
        """The cost of `count` pictures, in gradients of one."""

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

    def perturb(self, images: Tensor, seeds: Sequence[int], on_step: OnStep | None = None) -> Tensor:
        """See `Perturber.perturb`. Without `together`, the batch is the whole subject."""
        check_batch(images, seeds)
        if not set(seeds) <= set(self._images):
            self.together(list(images), seeds)
        if not self._deltas:
            side = max(image.shape[-1] for image in self._images.values())
            stack = torch.cat([_square(image, side) for image in self._images.values()])
            found = self.protected(stack, list(self._images), on_step).to(stack.device)
            self._deltas = dict(zip(self._images, found - stack, strict=True))
        delta = torch.cat([_square(self._deltas[seed], images.shape[-1]) for seed in seeds])
        return (images + delta.to(images)).clamp(0, 1)

    def seconds(self, side: int, count: int) -> float:
        """An estimate for `count` squares of `side` px, from a few gradient steps on one."""
        image = torch.full((1, 3, side, side), 0.5, device=self.device)
        ascent = Ascent(self.model, PgdSettings(random_start=False), self.prompt)

        def trial(steps: int) -> float:
            began = time.perf_counter()
            with self.surrogates.frozen():
                for _ in range(steps):
                    ascent.move(image, image, picture_generators([0]))
            return time.perf_counter() - began

        trial(1)  # the first call also sets things up
        return abs(trial(5) - trial(1)) / 4 * self.passes(count)


def _square(image: Tensor, side: int) -> Tensor:
    """[3, T, T] as [1, 3, side, side]."""
    if image.shape[-1] == side:
        return image[None]
    return F.interpolate(image[None], (side, side), mode="bilinear", align_corners=False, antialias=True)
