"""An immunized model in other hands: opened, attacked and asked by diffusers alone.

Nothing of ours is used after the model has been saved: the DreamBooth below is written from the paper with
plain diffusers calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from tests.tiny import pictures, write_tiny
from torch import Tensor

from unlikeness.cli import main
from unlikeness.gallery import to_pil

PROMPT, CLASS_PROMPT = "a photo of sks dog", "a photo of a dog"


@dataclass
class DreamBooth:
    """Fine-tunes a pipeline's U-Net on pictures [N, 3, H, W] in [-1, 1] and on what it draws of the class."""

    pipe: Any
    pictures: Tensor
    learning_rate: float
    batch: int = 4

    def __post_init__(self) -> None:
        pipe = self.pipe
        self.noising = DDPMScheduler.from_config(pipe.scheduler.config)
        self.generator = torch.Generator().manual_seed(0)
        drawn = pipe(
            [CLASS_PROMPT] * 4, num_inference_steps=6, generator=torch.Generator().manual_seed(1),
            output_type="pt",
        ).images  # fmt: skip
        with torch.no_grad():
            self.latents = {
                PROMPT: self.encoded(self.pictures),
                CLASS_PROMPT: self.encoded(2 * drawn.float() - 1),
            }
            self.words = {prompt: self.embedded(prompt) for prompt in self.latents}
        self.optimizer = torch.optim.AdamW(pipe.unet.parameters(), lr=self.learning_rate, weight_decay=0.01)

    def encoded(self, images: Tensor) -> Tensor:
        latents: Tensor = self.pipe.vae.encode(images).latent_dist.mean * self.pipe.vae.config.scaling_factor
        return latents

    def embedded(self, prompt: str) -> Tensor:
        tokens = self.pipe.tokenizer(
            prompt, padding="max_length", max_length=self.pipe.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        embedded: Tensor = self.pipe.text_encoder(tokens.input_ids)[0]
        return embedded

    def loss(self, prompt: str, generator: torch.Generator, batch: int) -> Tensor:
        latents = self.latents[prompt]
        z0 = latents[torch.randint(len(latents), (batch,), generator=generator)]
        noise = torch.randn(z0.shape, generator=generator)
        t = torch.randint(self.noising.config.num_train_timesteps, (batch,), generator=generator)
        noisy = self.noising.add_noise(z0, noise, t)
        answer = self.pipe.unet(
            noisy, t, encoder_hidden_states=self.words[prompt].expand(batch, -1, -1)
        ).sample
        if self.noising.config.prediction_type == "v_prediction":
            return F.mse_loss(answer, self.noising.get_velocity(z0, noise, t))
        return F.mse_loss(answer, noise)

    def measured(self) -> float:
        """The subject's loss at 64 fixed draws."""
        with torch.no_grad():
            return float(self.loss(PROMPT, torch.Generator().manual_seed(99), 64))

    def train(self, steps: int) -> None:
        self.pipe.unet.requires_grad_(True).train()
        for _ in range(steps):
            both = [self.loss(prompt, self.generator, self.batch) for prompt in (PROMPT, CLASS_PROMPT)]
            torch.stack(both).sum().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.pipe.unet.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.pipe.unet.eval()


def attacked(folder: Path, images: Tensor, *, steps: int, learning_rate: float) -> None:
    """Open, draw, attack, draw: the loss falls and the pictures change."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)

    def draw() -> Any:
        generator = torch.Generator().manual_seed(5)
        return pipe([PROMPT] * 2, num_inference_steps=6, generator=generator, output_type="np").images

    first = draw()
    attack = DreamBooth(pipe, 2 * images - 1, learning_rate)
    before = attack.measured()
    attack.train(steps)
    assert attack.measured() < 0.9 * before
    pictures_after = draw()
    side = images.shape[-1]
    assert first.shape == pictures_after.shape == (2, side, side, 3)
    assert np.isfinite(pictures_after).all()
    assert pictures_after.std() > 0.01
    assert np.abs(pictures_after - first).mean() > 0.005


def immunized(model: str, images: Tensor, tmp_path: Path, *further: str) -> Path:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for i, image in enumerate(images):
        to_pil(image).save(photos / f"{i}.png")
    command = ["immunize", "--model", model, "--images", str(photos), "--class-noun", "dog", "-q"]
    assert main([*command, "--output", str(out), "--device", "cpu", *further]) == 0
    return out


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_tiny_immunized_model_is_attacked_with_diffusers_alone(
    prediction_type: str, tmp_path: Path
) -> None:
    model = write_tiny(tmp_path / "model", prediction_type=prediction_type)
    images = pictures(3)
    out = immunized(
        str(model), images, tmp_path, "--outer-steps", "2", "--inner-steps", "2", "--learning-rate", "1e-4",
        "--set", "class_images=3", "--set", "class_steps=2", "--set", "contexts=a photo of {} a",
    )  # fmt: skip
    attacked(out, images, steps=40, learning_rate=3e-3)


@pytest.mark.slow
def test_an_immunized_toybox_is_attacked_with_diffusers_alone(tmp_path: Path) -> None:
    from unlikeness.toybox.cast import member

    images = member(0, "dog").subject().images
    out = immunized(
        "toybox", images, tmp_path, "--outer-steps", "3", "--inner-steps", "2", "--learning-rate", "1e-4",
        "--attack-learning-rate", "3e-4", "--set", "class_images=8", "--set", "class_steps=8",
    )  # fmt: skip
    attacked(out, images, steps=30, learning_rate=5e-4)
