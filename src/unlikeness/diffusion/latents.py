"""Between images and latents: the autoencoder seen as a Gaussian posterior, in scaled latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unlikeness.diffusion import finite

__all__ = ["Posterior", "at_once", "decode", "encode"]

_AT_ONCE = 4 * 64 * 64 * 16
"""Latent values in a call of the U-Net that keeps no graph: 16 pictures of 512 px."""


def at_once(shape: Sequence[int]) -> int:
    """How many latents of this shape (C, h, w) a call of the U-Net may have that keeps no graph."""
    return max(_AT_ONCE // math.prod(shape), 1)


@dataclass(frozen=True)
class Posterior:
    """q(z0 | x): a diagonal Gaussian over scaled latents.

    mean, std: [B, C, h, w]. An autoencoder without a posterior (AutoencoderTiny) has std = 0.
    """

    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return self.mean.shape[0]

    def __getitem__(self, index: slice | Tensor | list[int]) -> Posterior:
        return Posterior(self.mean[index], self.std[index])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z0 [B, C, h, w], differentiable w.r.t. the images (reparametrised); drawn from `generator`."""
        return self.mean + self.std * randn(tuple(self.mean.shape), self.mean, generator)

    @staticmethod
    def cat(parts: list[Posterior]) -> Posterior:
        """One posterior of several batches, in order."""
        return Posterior(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts]))


def randn(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """N(0, I) on the generator's own device in float32, moved to `like`: one seed, one noise everywhere."""
    device = generator.device if generator is not None else like.device
    return torch.randn(shape, generator=generator, device=device).to(like.device, like.dtype)


def encode(vae: Any, images: Tensor) -> Posterior:
    """images [B, 3, H, W] in [0, 1] -> posterior over scaled latents; differentiable w.r.t. the images."""
    encoded = vae.encode(2 * images.to(vae.dtype) - 1)
    if hasattr(encoded, "latent_dist"):
        mean, std = encoded.latent_dist.mean, encoded.latent_dist.std
    else:
        mean = encoded.latents
        std = torch.zeros_like(mean)
    scale, shift = _scaling(vae)
    return Posterior((mean - shift) * scale, std * scale)


def decode(vae: Any, z0: Tensor) -> Tensor:
    """Scaled latents z0 [B, C, h, w] -> images [B, 3, H, W] in [0, 1] (clamped)."""
    scale, shift = _scaling(vae)
    raw: Tensor = vae.decode(z0.to(vae.dtype) / scale + shift).sample
    if not raw.requires_grad:  # clamping would make white of infinity
        finite.check(raw, finite.DECODER, vae.dtype)
    return ((raw + 1) / 2).clamp(0, 1)


def _scaling(vae: Any) -> tuple[float, float]:
    shift = getattr(vae.config, "shift_factor", None)
    return float(vae.config.scaling_factor), float(shift or 0.0)
