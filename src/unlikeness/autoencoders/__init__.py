"""Images to latents and back: any autoencoder of diffusers, in the latents that a denoiser sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up

if TYPE_CHECKING:
    from unlikeness.autoencoders.autoencoder import Autoencoder, Posterior, randn

__all__ = ["Autoencoder", "Posterior", "randn"]

__getattr__ = looked_up(__name__, {"autoencoder": ("Autoencoder", "Posterior", "randn")})
