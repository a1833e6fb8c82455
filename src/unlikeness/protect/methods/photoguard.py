"""PhotoGuard's encoder attack: pull the latent to a target's (Salman et al. 2023, arXiv 2302.06588, Eq. 2).

    min over δ, |δ| <= budget:  ‖E(x + δ) − z_tgt‖²

E is the mean of the autoencoder's posterior; the denoiser takes no part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness import finite
from unlikeness.protect.aims import read_target
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.settings import PhotoGuardSettings
from unlikeness.protect.surrogates import Models, Surrogate
from unlikeness.viewing import viewed

__all__ = ["PhotoGuard", "PhotoGuardSettings"]


class PhotoGuard(GradientProtection[PhotoGuardSettings]):
    """Lowers the distance between the picture's latent and the target's. Autoencoders alone are enough."""

    settings_type = PhotoGuardSettings

    def __init__(self, models: Models, settings: PhotoGuardSettings) -> None:
        super().__init__(models, settings)
        self._picture: Tensor | None = None
        self._latents: dict[tuple[Surrogate, int, int], Tensor] = {}
        if settings.target == "grey":
            self._picture = torch.full((1, 3, 8, 8), 0.5)
        elif settings.target != "zero":
            self._picture = read_target(Path(settings.target))

    @property
    def fingerprint(self) -> str:
        """Of the models, and of a target picture."""
        if self._picture is None or self.settings.target == "grey":
            return super().fingerprint
        return f"{super().fingerprint} {hashlib.sha256(self._picture.numpy().tobytes()).hexdigest()[:16]}"

    def target_latent(self, surrogate: Surrogate, height: int, width: int) -> Tensor:
        """z_tgt for pictures of this size, [1, C, h, w]. A target picture is resized to it."""
        key = (surrogate, height, width)
        if key not in self._latents:
            if self._picture is None:
                like = torch.zeros(1, 3, height, width)
            else:
                like = F.interpolate(self._picture, (height, width), mode="bilinear", antialias=True)
            with torch.no_grad():
                latent = surrogate.encode(like).mean
            finite.check(latent, finite.ENCODER, surrogate.autoencoder.dtype)
            self._latents[key] = torch.zeros_like(latent) if self._picture is None else latent
        return self._latents[key]

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: minus the squared distance to the target's latent, mean over elements."""
        seen = viewed(images, surrogate.resolution)
        z_tgt = self.target_latent(surrogate, seen.shape[2], seen.shape[3])
        return -(surrogate.encode(seen).mean - z_tgt).square().flatten(1).mean(1)
