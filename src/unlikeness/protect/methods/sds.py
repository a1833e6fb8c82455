"""SDS: the diffusion loss without a gradient through the denoiser (Diff-Protect, arXiv 2311.12832).

    z0 ~ E(x + δ),   g = ε̂_θ(z_t, t, c) − ε,   δ <- project(δ ± α sign ∂⟨g, z0⟩/∂x), g held fixed

That is the gradient of score distillation (DreamFusion, arXiv 2209.14988, Eq. 3) with weight 1. With plus
the diffusion loss rises, SDS(+). With minus it falls, SDS(−), which the paper prefers: the change is less
visible, and what an editor draws is smoothed. A step has a forward pass of the denoiser, and the gradient of
the encoder alone.

Here ε̂ is the ε that a prediction stands for, so that v-prediction and flow matching work too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlikeness.protect.base import GradientProtection
from unlikeness.protect.published import SdsSettings
from unlikeness.protect.surrogates import Models, Surrogate

__all__ = ["Sds", "SdsSettings"]


class Sds(GradientProtection[SdsSettings]):
    """Lowers or raises the diffusion loss by the gradient of the autoencoder alone.

    UsageError for a prompt that is longer than a model reads, and for an autoencoder without a model.
    """

    settings_type = SdsSettings

    def __init__(self, models: Models, settings: SdsSettings) -> None:
        super().__init__(models, settings)
        self._c = self.surrogates.all_conditions(settings.prompt)

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: ± mean (ε̂ − ε)², with the gradient of ⟨g, z0⟩ in the place of its own."""
        model, c = surrogate.whole, self._c[surrogate]
        posterior = surrogate.encode(images)
        total = torch.zeros(len(images), device=posterior.mean.device)
        for _ in range(self.settings.draws):
            z0, t, eps = surrogate.drawn(posterior, generators)
            with torch.no_grad():
                z_t = model.schedule.add_noise(z0, eps, t)
                f = model.predict(z_t, t, c.expand(len(z0))).to(z0)
                g = model.schedule.predict_eps(f, z_t, t) - eps
            total = total + (g.square() + g * (z0 - z0.detach())).flatten(1).mean(1)
        sign = 1 if self.settings.direction == "maximise" else -1
        return sign * total / self.settings.draws
