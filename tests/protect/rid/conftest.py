"""A small network of the official kind, and a second model to protect against."""

from __future__ import annotations

import diffusers
import pytest
import torch
import transformers
from tests.protect.rid.official import checkpoint, written

from unlikeness.diffusion import TextToImage
from unlikeness.protect.rid.official import OfficialRid, load_official


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> OfficialRid:
    return load_official(written(tmp_path_factory.mktemp("net"), checkpoint()))


@pytest.fixture(scope="session")
def other(model: TextToImage) -> TextToImage:
    """A model of another resolution (16 px), other latents (6 channels), another text encoder's width."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8), layers_per_block=1, latent_channels=6, norm_num_groups=4,
            sample_size=16, scaling_factor=0.5,
        )  # fmt: skip
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, in_channels=6, out_channels=6, layers_per_block=1, block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=24, attention_head_dim=4, norm_num_groups=4,
        )  # fmt: skip
        text_encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=200, hidden_size=24, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=16, bos_token_id=194, eos_token_id=195,
                pad_token_id=195,
            )
        )  # fmt: skip
    made = TextToImage.from_parts(model.parts | {"vae": vae, "unet": unet, "text_encoder": text_encoder})
    assert (made.resolution, made.latent_shape) == (16, (6, 8, 8))
    return made.freeze()
