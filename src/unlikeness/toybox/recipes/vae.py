"""The toybox's autoencoder, `AutoencoderKL`, from 64 px to 16 x 16 latents of 6 channels; and its latents.

The latents have a quarter of the side, not an eighth: see docs/toybox.md. Most steps see crops of a quarter
of the picture, four times as many a second, since the network is convolutional; the last see whole pictures.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from unlikeness.files import sync
from unlikeness.progress import Progress, Silent
from unlikeness.tensors import for_readers, written
from unlikeness.toybox.recipes.renders import Renders, captioned, render_many
from unlikeness.toybox.recipes.settings import VAE_SCALE, VaeRecipe
from unlikeness.toybox.world import SIZE
from unlikeness.training import Ema, adamw, cosine, train

LATENT_CHANNELS = 6


def new_vae() -> AutoencoderKL:
    """The architecture with random weights."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 48, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )


def vae_loss(vae: AutoencoderKL, images: Tensor, noise: Tensor, recipe: VaeRecipe) -> Tensor:
    """Squared and absolute error of the reconstruction, and the KL divergence of the posterior from N(0, I).

    images: [B, 3, H, W] in [0, 1]. noise: N(0, I) of the latents' shape.
    """
    with torch.autocast(images.device.type, torch.bfloat16):
        posterior = vae.encode(images * 2 - 1).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        decoded = vae.decode(mean + torch.exp(0.5 * logvar) * noise).sample.float()
    error = (decoded + 1) / 2 - images
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    loss: Tensor = error.square().mean() + recipe.absolute_weight * error.abs().mean() + recipe.kl_weight * kl
    return loss


@torch.no_grad()
def measure_scaling(vae: AutoencoderKL, renders: Renders) -> float:
    """The `scaling_factor`: 1 / standard deviation of the posterior means (Rombach et al. 2022, app. G)."""
    means = [
        vae.encode(renders.images(torch.arange(i, min(i + 64, len(renders)))) * 2 - 1).latent_dist.mean
        for i in range(0, min(len(renders), 2048), 64)
    ]
    return 1.0 / float(torch.cat(means).std())


def train_vae(
    recipe: VaeRecipe, output: Path, *, work: Path, progress: Progress | None = None, device: str = "cpu"
) -> None:
    """Train. output: diffusers folder. work: renders and checkpoint."""
    renders = render_many(
        captioned, recipe.pictures, seed=recipe.seed, folder=work / "renders", progress=progress
    )
    torch.manual_seed(recipe.seed)
    vae = new_vae().train().to(device)
    parameters = list(vae.parameters())
    ema = Ema(parameters, 0.995)

    def step(index: int, generator: torch.Generator) -> Tensor:
        whole = index >= recipe.steps * (1 - recipe.whole_share)
        side = SIZE if whole else recipe.crop_size
        count = max(1, recipe.crops * recipe.crop_size**2 // side**2) * (2 if whole else 1)
        rows = torch.randint(len(renders), (count,), generator=generator)
        y, x = (
            int(v)
            for v in torch.randint((SIZE - side) // VAE_SCALE + 1, (2,), generator=generator) * VAE_SCALE
        )
        images = renders.images(rows)[:, :, y : y + side, x : x + side].contiguous().to(device)
        noise = torch.randn(
            (count, LATENT_CHANNELS, side // VAE_SCALE, side // VAE_SCALE), generator=generator
        )
        return vae_loss(vae, images, noise.to(device), recipe)

    train(
        step,
        steps=recipe.steps,
        optimizer=adamw(parameters, lr=recipe.learning_rate, weight_decay=0.0),
        parameters=parameters,
        seed=recipe.seed,
        schedule=cosine(recipe.steps, warmup=100),
        ema=ema,
        checkpoint=work / "vae.safetensors",
        settings=asdict(recipe),
        progress=progress,
        description="toybox vae",
    )
    ema.copy_to(parameters)
    vae.cpu().eval()
    vae.register_to_config(scaling_factor=measure_scaling(vae, renders))
    with replacing_folder(output) as part:
        vae.half().save_pretrained(part)


@contextmanager
def replacing_folder(output: Path) -> Iterator[Path]:
    """A new folder's path beside `output`, which it replaces when the block ends without an error.

    UnlikenessError if it cannot be written.
    """
    part, old = (output.with_name(f".{output.name}.{what}") for what in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    try:
        with written(f"{output} cannot be written", "free space there, or name another --output"):
            yield part
            for_readers(*part.rglob("*"))
            sync(part)
            if output.exists():
                shutil.rmtree(old, ignore_errors=True)
                output.rename(old)
            part.rename(output)
    finally:
        if old.exists() and not output.exists():
            old.rename(output)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class Latents:
    """Posteriors of renders. mean_std: float16 [N, 2, C, h, w], scaled, memory-mapped."""

    mean_std: npt.NDArray[np.float16]

    def sample(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """z0 ~ N(mean, std^2) of these pictures, float32 [B, C, h, w]."""
        rows = torch.from_numpy(self.mean_std[index.numpy()].astype(np.float32))
        mean, std = rows[:, 0], rows[:, 1]
        return mean + std * torch.randn(mean.shape, generator=generator)


def digest_of(vae: AutoencoderKL) -> str:
    """Twelve letters for an autoencoder's configuration and weights."""
    config = {k: v for k, v in vae.config.items() if not k.startswith("_")}  # such as "_name_or_path"
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for key, value in sorted(vae.state_dict().items()):
        digest.update(key.encode() + value.float().numpy().tobytes())
    return digest.hexdigest()[:12]


def encode_renders(
    vae: AutoencoderKL, renders: Renders, *, folder: Path, name: str, progress: Progress | None = None
) -> Latents:
    """Posteriors of all `renders`, kept in `folder` and reused while the weights of `vae` are the same."""
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
