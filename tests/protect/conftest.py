"""A tiny model, trained for a few seconds so that it has something to lose, and a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.protect.test_tiles import write
from tests.tiny import pictures, tiny_model

from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.protect.methods.noise import Noise, NoiseSettings


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def model(weights: Path) -> TextToImage:
    """Latents of unit variance with a narrow posterior, and a U-Net that has seen smooth pictures."""
    made = tiny_model(weights)
    images = pictures(64, seed=7)
    with torch.no_grad():
        made.autoencoder.network.quant_conv.weight[4:] = 0
        made.autoencoder.network.quant_conv.bias[4:] = -6
        scale = made.autoencoder.network.config.scaling_factor / float(made.encode(images).mean.std(0).mean())
        made.autoencoder.network.register_to_config(scaling_factor=scale)
        z0 = made.encode(images).mean
    made.denoiser.requires_grad_(True)
    optimizer = torch.optim.Adam(made.denoiser.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    c = made.condition(["a photo"])
    for _ in range(120):
        batch = torch.randint(64, (8,), generator=generator)
        optimizer.zero_grad()
        diffusion_loss(made, z0[batch], c, generator=generator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad()
    return made.freeze()


@pytest.fixture
def noise(model: TextToImage) -> Noise:
    return Noise(model, NoiseSettings(budget=4))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five good pictures in two folders, and three files that are none."""
    root = tmp_path / "photos"
    (root / "deep" / "er").mkdir(parents=True)
    write(root / "a.png", 90, 64, seed=1)
    write(root / "b.jpg", 70, 70, seed=2)
    write(root / "deep" / "a.png", 40, 60, seed=3)
    write(root / "deep" / "er" / "c.bmp", 33, 21, seed=4)
    write(root / "z.webp", 64, 48, seed=5)
    (root / "broken.jpg").write_bytes((root / "b.jpg").read_bytes()[:300])
    (root / "not.png").write_text("hello")
    (root / "notes.txt").write_text("not a picture, and passed over")
    write(root / ".hidden.png", 20, 20)
    return root
