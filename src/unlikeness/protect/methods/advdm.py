"""AdvDM: raise the diffusion loss of the frozen model (Liang et al. 2023, arXiv 2302.04578, Algorithm 1).

    max over δ, |δ| <= budget:  E_{t, ε} ‖f_θ(z_t, t, c) − target(z0, ε, t)‖²,  z0 ~ E(x + δ)

Each step draws its own t, ε and posterior sample and follows the gradient's sign through the U-Net and the
autoencoder's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.diffusion.loss import diffusion_loss
from unlikeness.errors import UsageError
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.settings import AdvDMSettings
from unlikeness.seeds import integers, normal

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["AdvDM", "AdvDMSettings"]


class AdvDM(GradientProtection[AdvDMSettings]):
    """Raises the diffusion loss: the picture becomes one that the model finds hard to learn from.

    UsageError for a prompt that is longer than the model reads.
    """

    settings_type = AdvDMSettings

    def __init__(self, model: TextToImage, settings: AdvDMSettings) -> None:
        super().__init__(model, settings)
        if reason := model.conditioner.too_long(settings.prompt):
            raise UsageError(reason)
        with torch.no_grad():
            self._c = model.condition([settings.prompt]).detach()

    def objective(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """[B]: L_diff of each picture at its own t and ε, mean over elements and draws."""
        posterior = self.model.encode(images)
        total = torch.zeros(len(images), device=images.device)
        for _ in range(self.settings.draws):
            z0 = posterior.mean + posterior.std * normal(posterior.mean, generators)
            t = integers(0, self.model.schedule.steps, generators).to(images.device)
            eps = normal(z0, generators)
            total = total + diffusion_loss(self.model, z0, self._c, t=t, eps=eps, reduce="none")
        return total / self.settings.draws
