"""Plain noise of the same budget: the control that every protection has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from unlikeness.protect.against import Against
from unlikeness.protect.settings import NoiseSettings, ProtectSettings
from unlikeness.protect.surrogates import Models, Surrogates
from unlikeness.seeds import picture_generators, uniform

__all__ = ["Noise", "NoiseSettings"]


class Noise:
    """Adds noise. The model only gives the resolution at which its trainer would see the picture."""

    settings_type: ClassVar[type[ProtectSettings]] = NoiseSettings
    needs_model: ClassVar[bool] = True

    def __init__(self, models: Models, settings: NoiseSettings) -> None:
        self.settings = settings
        several = Surrogates.of(models) if isinstance(models, Sequence) else models
        self.resolution = several.resolution
        self.against = Against.control()

    @torch.no_grad()
    def perturb(
        self, images: Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """See `Perturber.perturb`."""
        noise = uniform(images, picture_generators(seeds))
        if self.settings.kind == "sign":
            noise = torch.where(noise < 0, -1.0, 1.0).to(noise)
        return (images + noise * (self.settings.budget / 255)).clamp(0, 1)
