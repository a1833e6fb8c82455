"""AdvDM: raise the diffusion loss of the frozen model (Liang et al. 2023, arXiv 2302.04578, Algorithm 1).

    max over δ, |δ| <= budget:  E_{t, ε} ‖f_θ(z_t, t, c) − target(z0, ε, t)‖²,  z0 ~ E(x + δ)

Each step draws its own t, ε and posterior sample, and follows the sign of the gradient through the denoiser
and the autoencoder's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlikeness.protect.base import GradientProtection
from unlikeness.protect.settings import AdvDMSettings
from unlikeness.protect.surrogates import Models, Surrogate

__all__ = ["AdvDM", "AdvDMSettings"]


class AdvDM(GradientProtection[AdvDMSettings]):
    """Raises the diffusion loss: the picture becomes one that the model finds hard to learn from.

    UsageError for a prompt that is longer than a model reads, and for an autoencoder without a model.
    """

    settings_type = AdvDMSettings

    def __init__(self, models: Models, settings: AdvDMSettings) -> None:
        super().__init__(models, settings)
        self._c = self.surrogates.all_conditions(settings.prompt)

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: see `Surrogate.denoising_loss`."""
        return surrogate.denoising_loss(
            images, self._c[surrogate], generators, draws=self.settings.draws
        )  # fmt: skip
