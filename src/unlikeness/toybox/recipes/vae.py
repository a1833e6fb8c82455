"""The toybox's autoencoder: `AutoencoderKL`, 64 px to 16 x 16 latents of 6 channels.

A quarter of the side, not an eighth: see docs/toybox.md for the trials. Most steps see quarter-size crops
(the network is convolutional), four times as many a second; the last see whole pictures.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from unlikeness.progress import Progress
from unlikeness.toybox.recipes.draws import captioned
from unlikeness.toybox.recipes.renders import Renders, render_many
from unlikeness.toybox.recipes.replacing import replacing
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
    """1 / standard deviation of the posterior means, which `scaling_factor` is (Rombach et al. 2022,
    appendix G).
    """
    means = [
        vae.encode(renders.images(torch.arange(i, min(i + 64, len(renders)))) * 2 - 1).latent_dist.mean
        for i in range(0, min(len(renders), 2048), 64)
    ]
    return 1.0 / float(torch.cat(means).std())


def train_vae(
    recipe: VaeRecipe, output: Path, *, work: Path, progress: Progress | None = None, device: str = "cpu"
) -> None:
    """Train and write a diffusers folder `output`; `work` holds renders and the checkpoint to resume from."""
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
    with replacing(output) as part:
        vae.half().save_pretrained(part)


def reconstruct(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images through the posterior's mean and back, [B, 3, H, W] in [0, 1]."""
    with torch.no_grad():
        mean = vae.encode(images * 2 - 1).latent_dist.mean
        decoded: Tensor = vae.decode(mean).sample
        return ((decoded + 1) / 2).clamp(0, 1)


def mean_psnr(vae: AutoencoderKL, images: Tensor) -> float:
    """Mean over pictures of the reconstruction's PSNR [dB]."""
    error = torch.cat([(reconstruct(vae, b) - b).square().mean((1, 2, 3)) for b in torch.split(images, 64)])
    return float((-10 * error.log10()).mean())
