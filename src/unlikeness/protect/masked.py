"""Any protection within a budget that differs from pixel to pixel.

A network that takes such a budget is told it; a gradient is followed within it; of anything else the
perturbation is scaled afterwards, which keeps the bound too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unlikeness.protect.base import GradientProtection, Perturber
from unlikeness.protect.settings import PgdSettings

__all__ = ["SpendsByPixel", "perturb_within"]


@runtime_checkable
class SpendsByPixel(Protocol):
    """A protection that can be told a budget for each pixel, as `Rid` can."""

    def delta(self, images: Tensor, budget: Tensor) -> Tensor:
        """δ of images [B, 3, H, W], nowhere beyond the budget [B, 1, H, W] in n/255."""


@torch.no_grad()
def perturb_within(
    perturber: Perturber,
    images: Tensor,
    strength: Tensor,
    seeds: Sequence[int],
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """`Perturber.perturb` with the budget times `strength` at each pixel.

    strength: [B, 1, H, W] in [0, 1]. Where it is 0, the result is the picture.
    """
    budget = perturber.settings.budget
    if isinstance(perturber, SpendsByPixel):
        protected = (images + perturber.delta(images, budget * strength).to(images)).clamp(0, 1)
        if on_step is not None:
            on_step(1)
        return protected
    if isinstance(perturber, GradientProtection):
        return _Within(perturber, strength).perturb(images, seeds, on_step)
    free = perturber.perturb(images, seeds, on_step)
    return images + (free - images) * strength


class _Within(GradientProtection[PgdSettings]):
    """A gradient protection whose every step is projected into the ball of the pixel's own size."""

    settings_type = PgdSettings

    def __init__(self, inner: GradientProtection[PgdSettings], strength: Tensor) -> None:
        super().__init__(inner.model, inner.settings)
        self._inner = inner
        self._budget = strength.to(inner.model.device) * (inner.settings.budget / 255)

    def objective(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return self._inner.objective(images, generators)

    def gradient(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return self._inner.gradient(images, generators)

    def step(self, gradient: Tensor) -> Tensor:
        return self._inner.step(gradient)

    def start(self, original: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return self.project(self._inner.start(original, generators), original)

    def project(self, images: Tensor, original: Tensor) -> Tensor:
        near = self._inner.project(images, original)
        return torch.clamp(near, original - self._budget, original + self._budget)
