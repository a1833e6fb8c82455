"""The toybox's text-to-image model: a U-Net and a CLIP text encoder, trained on captioned renders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from unlikeness.autoencoders.opening import open_autoencoder
from unlikeness.diffusion import Schedule, TextToImage
from unlikeness.diffusion.families import Defaults
from unlikeness.errors import UsageError
from unlikeness.progress import Progress
from unlikeness.toybox.recipes.renders import captioned, render_many
from unlikeness.toybox.recipes.settings import VAE_SCALE, ModelRecipe
from unlikeness.toybox.recipes.tokenizer import LENGTH, write_tokenizer
from unlikeness.toybox.recipes.vae import LATENT_CHANNELS, digest_of, encode_renders, replacing_folder
from unlikeness.toybox.world import SIZE, sample_picture
from unlikeness.training import Ema, adamw, train, trapezoid

GUIDANCE = 3.0


def new_unet() -> UNet2DConditionModel:
    """The architecture with random weights."""
    return UNet2DConditionModel(
        sample_size=SIZE // VAE_SCALE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_text_encoder(vocabulary: int) -> CLIPTextModel:
    """The architecture with random weights; the last two tokens of the vocabulary are the ends of a text."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def new_scheduler() -> PNDMScheduler:
    """Stable Diffusion 1.5's noise schedule and sampler."""
    return PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def corpus() -> list[str]:
    """Captions without names, from which the tokenizer learns its words."""
    return [sample_picture(np.random.default_rng((11, i)))[1] for i in range(5000)]


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder to train with, frozen, float32.

    UsageError for a folder without one of this form; UnlikenessError for a damaged one.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} holds no autoencoder; `unlikeness toybox train vae` makes it, or name one with --vae"
        )
    found = open_autoencoder(folder)
    if found.channels != LATENT_CHANNELS:
        raise UsageError(
            f"the autoencoder {folder} has latents of {found.channels} channels, and the "
            f"toybox's model is made for {LATENT_CHANNELS}; give one of `unlikeness toybox train vae`"
        )
    network: AutoencoderKL = found.network.float()
    return network


def train_model(
    recipe: ModelRecipe,
    output: Path,
    *,
    work: Path,
    vae: Path,
    progress: Progress | None = None,
    device: str = "cpu",
) -> None:
    """Train. output: diffusers folder. vae: folder of the trained autoencoder.

    work: renders, latents and a checkpoint, which is refused with another autoencoder.
    """
    autoencoder = load_autoencoder(vae)
    renders = render_many(
        captioned, recipe.pictures, seed=recipe.seed, folder=work / "renders", progress=progress
    )
    latents = encode_renders(
        autoencoder, renders, folder=work / "renders", name=f"captioned-{recipe.seed}", progress=progress
    )
    vocabulary = write_tokenizer(work / "tokenizer", corpus())
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    torch.manual_seed(recipe.seed)
    unet, text_encoder = new_unet().train().to(device), new_text_encoder(vocabulary).train().to(device)
    scheduler = new_scheduler()
    schedule = Schedule.from_scheduler(scheduler)
    tokens = tokenizer([*renders.labels, ""], padding="max_length", truncation=True, max_length=LENGTH)
    token_ids = torch.tensor(tokens["input_ids"])
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    ema = Ema(parameters, recipe.average)

    def step(index: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(renders), (recipe.batch_size,), generator=generator)
        z0 = latents.sample(rows, generator)
        dropped = torch.rand(len(rows), generator=generator) < recipe.caption_dropout
        ids = token_ids[torch.where(dropped, len(renders), rows)].to(device)
        t = torch.randint(schedule.steps, (len(rows),), generator=generator).to(device)
        eps = torch.randn(z0.shape, generator=generator).to(device)
        z0 = z0.to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            c = text_encoder(ids).last_hidden_state
            f = unet(schedule.add_noise(z0, eps, t), t, c).sample
        loss: Tensor = (f.float() - schedule.target(z0, eps, t)).square().mean()
        return loss

    train(
        step,
        steps=recipe.steps,
        optimizer=adamw(parameters, lr=recipe.learning_rate),
        parameters=parameters,
        seed=recipe.seed,
        schedule=trapezoid(recipe.steps, warmup=500, fall=recipe.fall),
        ema=ema,
        checkpoint=work / "model.safetensors",
        settings={**asdict(recipe), "autoencoder": digest_of(autoencoder)},
        progress=progress,
        description="toybox model",
    )
    ema.copy_to(parameters)
    parts = {
        "vae": autoencoder,
        "unet": unet.cpu().eval(),
        "text_encoder": text_encoder.cpu().eval(),
        "tokenizer": tokenizer,
        "scheduler": scheduler,
    }
    model = TextToImage.from_parts(parts, defaults=Defaults(guidance=GUIDANCE))
    with replacing_folder(output) as part:
        model.save_pretrained(part, dtype=torch.float16)
