"""ACE: one target for the denoiser's answer and for the latent (Zheng et al., arXiv 2310.04687).

    min over δ, |δ| <= budget:  E_{t, ε} ‖ε̂_θ(z_t, t, c) − z_T‖² + λ ‖E(x + δ) − z_T‖²,   z_T = E(target)

A fine-tune learns to correct the errors of the frozen model. If these are the same for all pictures, so is
what it learns: the target's pattern. λ = 0 is ACE, λ > 0 its variant ACE+. The preset `mist-loss` puts the
diffusion loss, which is raised, in the place of the first term: Mist (arXiv 2305.12683, Eq. 9).

Here ε̂ is the ε that a prediction stands for; E is the posterior's mean; the target is not the papers' own
picture but black and white squares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlikeness.diffusion.loss import diffusion_loss
from unlikeness.protect.aims import Aims
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.published import AceSettings
from unlikeness.protect.surrogates import Models, Surrogate
from unlikeness.viewing import viewed

__all__ = ["Ace", "AceSettings"]


class Ace(GradientProtection[AceSettings]):
    """Pulls the denoiser's prediction and the latent to one target, the same for all pictures.

    UsageError for a prompt that is longer than a model reads, for an autoencoder without a model, and for a
    target that is no picture.
    """

    settings_type = AceSettings

    def __init__(self, models: Models, settings: AceSettings) -> None:
        super().__init__(models, settings)
        self._c = self.surrogates.all_conditions(settings.prompt)
        self._aims = Aims(settings.target)

    @property
    def fingerprint(self) -> str:
        """Of the models, and of a target picture."""
        return f"{super().fingerprint} {self._aims.fingerprint}".strip()

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: minus the weighted distances to the target, mean over elements."""
        model, c, own = surrogate.whole, self._c[surrogate], self.settings
        seen = viewed(images, surrogate.resolution)
        posterior = surrogate.encode(seen)
        target = self._aims.farthest(surrogate, posterior.mean.detach(), *seen.shape[-2:])
        z0, t, eps = surrogate.drawn(posterior, generators)
        if own.score == "loss":
            value = diffusion_loss(model, z0, c, t=t, eps=eps, reduce="none")
        else:
            z_t = model.schedule.add_noise(z0, eps, t)
            f = model.predict(z_t, t, c.expand(len(z0))).to(z0)
            value = -_distance(model.schedule.predict_eps(f, z_t, t), target)
        return value - own.latent_weight * _distance(posterior.mean, target)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().flatten(1).mean(1)
