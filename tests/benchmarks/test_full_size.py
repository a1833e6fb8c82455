"""The full-size benchmark: its configuration is Stable Diffusion 1.5's, and it measures what was trained."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from tests.tiny import encoder_of

from benchmarks import sd_memory
from unlikeness.errors import UsageError

SMALL = sd_memory.Architecture(
    latent_size=8, unet_channels=(16, 32), unet_layers=1, heads=2, vae_channels=(8, 16), vae_layers=1,
    groups=4, text_width=16, text_layers=1, text_heads=2, vocabulary=400, tokens=16,
)  # fmt: skip


@pytest.mark.parametrize("method", ["dreambooth", "lora"])
def test_a_small_one_is_measured(method: str) -> None:
    found = sd_memory.measure(SMALL, method, "float32", device=torch.device("cpu"), steps=2, seed=0)
    assert found["steps"] == 2
    assert 0 < found["seconds_a_step"] <= found["slowest_step"]
    assert found["memory_mib"] > 100
    whole = found["trained_parameters"] == found["unet_parameters"]
    assert whole == (method == "dreambooth")
    record = {
        "cells": {f"{method}/float32": found},
        "about": {"device": "a CPU", "steps": 2, "architecture": {"latent_size": 8}},
    }
    assert f"| {method} | float32 |" in sd_memory.render(record)


def test_the_architecture_is_stable_diffusions() -> None:
    """diffusers' own defaults of a U-Net are Stable Diffusion 1's, all but the width of the text."""
    full = sd_memory.Architecture()
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    model = sd_memory.stable_diffusion(full, torch.device("meta"), torch.float32, 0)
    count = sum(p.numel() for p in model.denoiser.parameters())
    assert count == sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in model.autoencoder.network.parameters()) == 83_653_863
    assert sum(p.numel() for p in encoder_of(model).parameters()) == 123_060_480
    assert model.resolution == 512


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_cpu_must_be_asked_for() -> None:
    with pytest.raises(UsageError, match="--device cpu"):
        sd_memory.cli([])
