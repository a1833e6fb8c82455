"""Latent posteriors of a store of renders, computed once and kept in half precision."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from unlikeness.files import sync
from unlikeness.progress import Progress, Silent
from unlikeness.toybox.recipes.renders import Renders


@dataclass(frozen=True)
class Latents:
    """mean_std: float16 [N, 2, C, h, w], scaled by the VAE's scaling factor, memory-mapped."""

    mean_std: npt.NDArray[np.float16]

    def sample(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """z0 ~ N(mean, std^2) of these pictures, float32 [B, C, h, w]."""
        rows = torch.from_numpy(self.mean_std[index.numpy()].astype(np.float32))
        mean, std = rows[:, 0], rows[:, 1]
        return mean + std * torch.randn(mean.shape, generator=generator)


def digest_of(vae: AutoencoderKL) -> str:
    """Twelve letters for the configuration and the weights, wherever they lie."""
    config = {k: v for k, v in vae.config.items() if not k.startswith("_")}  # "_name_or_path" is a place
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for key, value in sorted(vae.state_dict().items()):
        digest.update(key.encode() + value.float().numpy().tobytes())
    return digest.hexdigest()[:12]


def encode_renders(
    vae: AutoencoderKL, renders: Renders, *, folder: Path, name: str, progress: Progress | None = None
) -> Latents:
    """Posteriors of all `renders` under `vae`, kept in `folder` and reused while the VAE's weights
    are the same.
    """
    file = folder / f"latents-{name}-{len(renders)}-{digest_of(vae)}.npy"
    if not file.exists():
        _encode_to(file, vae, renders, progress or Silent())
    return Latents(np.load(file, mmap_mode="r"))


@torch.no_grad()
def _encode_to(file: Path, vae: AutoencoderKL, renders: Renders, progress: Progress) -> None:
    scale = vae.config.scaling_factor
    side = renders.pixels.shape[1] // 2 ** (len(vae.config.block_out_channels) - 1)
    shape = (len(renders), 2, vae.config.latent_channels, side, side)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    out = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
    progress.start(len(renders), "encoding", "picture")
    for start in range(0, len(renders), 64):
        images = renders.images(np.arange(start, min(start + 64, len(renders))))
        posterior = vae.encode(images * 2 - 1).latent_dist
        both = torch.stack([posterior.mean, posterior.std], dim=1) * scale
        out[start : start + len(both)] = both.numpy()
        progress.advance(len(both))
    out.flush()
    del out
    progress.close()
    sync(part)
    part.replace(file)
