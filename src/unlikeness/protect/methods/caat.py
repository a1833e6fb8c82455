"""CAAT: while cross-attention learns the pictures, they are moved against it (arXiv 2404.15081, Algorithm 1).

    max over δ, |δ| <= budget, min over the keys and values θ_kv of cross-attention:  L_diff(x + δ, c)

Each step computes one gradient for both: δ moves by its sign, and θ_kv by a step of AdamW. Nothing else of
the model changes. As in the released code, the pictures of a run share θ_kv, so they are one subject's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.inside import prompt_layers
from unlikeness.diffusion.lora import merged_copy
from unlikeness.protect.base import OnStep
from unlikeness.protect.published import CaatSettings
from unlikeness.protect.settings import PgdSettings
from unlikeness.protect.surrogates import frozen
from unlikeness.protect.together import Ascent, TogetherProtection
from unlikeness.seeds import picture_generators
from unlikeness.training import adamw

__all__ = ["Caat", "CaatSettings"]

_CLIP = 1.0
"""Largest norm of the weights' gradient, as in the released code."""


class Caat(TogetherProtection[CaatSettings]):
    """Raises the diffusion loss while keys and values of cross-attention lower it."""

    settings_type = CaatSettings

    @property
    def prompt(self) -> str:
        """The settings' own."""
        return self.settings.prompt

    @property
    def steps(self) -> int:
        """The settings' own."""
        return self.settings.steps

    def protected(self, images: Tensor, seeds: Sequence[int], on_step: OnStep | None) -> Tensor:
        """See `TogetherProtection.protected`."""
        s = self.settings
        copied = merged_copy(self.model).widen()
        pgd = PgdSettings(budget=s.budget, steps=s.steps, step_size=s.step_size, random_start=False)
        original = current = images.detach().to(self.device)
        generators = picture_generators(seeds)
        with frozen(*copied.networks):
            ascent = _Joint(copied, pgd, s.prompt)
            optimizer = adamw(ascent.weights, lr=s.learning_rate)
            for k in range(s.steps):
                current = ascent.move(current, original, generators)
                torch.nn.utils.clip_grad_norm_(ascent.weights, _CLIP)
                optimizer.step()
                optimizer.zero_grad()
                if on_step is not None:
                    on_step(k + 1)
        return current

    def passes(self, count: int) -> float:
        """See `TogetherProtection.passes`."""
        return float(count * self.settings.steps)


class _Joint(Ascent):
    """The gradient of the pictures, and beside it that of the keys' and values' weights."""

    def __init__(self, model: TextToImage, settings: PgdSettings, prompt: str) -> None:
        super().__init__(model, settings, prompt)
        self.weights = [weight for layer in prompt_layers(model) for weight in layer.parameters()]
        for weight in self.weights:
            weight.requires_grad_(True)

    def gradient(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """See `GradientProtection.gradient`. The weights' gradients add up over the parts of a subject."""
        (surrogate,) = self.surrogates
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            value = self.objective(surrogate, leaf, generators).sum()
            gradient, *own = torch.autograd.grad(value, [leaf, *self.weights])
        for weight, more in zip(self.weights, own, strict=True):
            weight.grad = more if weight.grad is None else weight.grad + more
        return gradient
