"""Any autoencoder of diffusers: sizes, normalisation, posterior, and what its folder may ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from tests.tiny import pictures

from unlikeness.autoencoders import Autoencoder, Posterior
from unlikeness.autoencoders.opening import open_autoencoder, try_encoder
from unlikeness.errors import UnlikenessError, UsageError

KL = {
    "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 8, 16), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4,
}  # fmt: skip
MEAN, STD = [0.1, -0.2, 0.3], [1.5, 0.5, 2.0]


def _kl(**further: Any) -> Any:
    return diffusers.AutoencoderKL(**KL, **further)


def _tiny() -> Any:
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), latent_channels=4,
    )  # fmt: skip


def _film() -> Any:
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=3, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=MEAN, latents_std=STD,
    )  # fmt: skip


def _wan() -> Any:
    return diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, num_res_blocks=1)


def _flux2() -> Any:
    return diffusers.AutoencoderKLFlux2(**KL)


def _dc() -> Any:
    return diffusers.AutoencoderDC(
        latent_channels=4, attention_head_dim=4, encoder_block_types=["ResBlock", "EfficientViTBlock"],
        decoder_block_types=["ResBlock", "EfficientViTBlock"], encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), scaling_factor=0.4,
        downsample_block_type="Conv", upsample_block_type="interpolate",
    )  # fmt: skip


MADE = {
    "kl": (_kl, 4, 4), "tiny": (_tiny, 4, 4), "film": (_film, 2, 3), "wan": (_wan, 8, 16), "dc": (_dc, 2, 4),
    "flux2": (_flux2, 4, 4),
}  # fmt: skip
"""Name -> (maker, factor, channels)."""


def made(name: str) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Autoencoder(MADE[name][0]().eval().requires_grad_(False))


@pytest.mark.parametrize("name", MADE)
def test_sizes_are_what_encoding_gives(name: str) -> None:
    autoencoder, (_, factor, channels) = made(name), MADE[name]
    assert (autoencoder.factor, autoencoder.channels) == (factor, channels)
    images = pictures(2)
    posterior = autoencoder.encode(images)
    assert posterior.mean.shape == posterior.std.shape == (2, channels, 32 // factor, 32 // factor)
    assert len(posterior[:1]) == 1
    decoded = autoencoder.decode(posterior.mean)
    assert decoded.shape == images.shape
    assert 0 <= float(decoded.min()) <= float(decoded.max()) <= 1


@pytest.mark.parametrize("name", MADE)
def test_the_gradient_reaches_the_pixels(name: str) -> None:
    images = pictures(1).requires_grad_()
    made(name).encode(images).mean.square().sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_latents_are_scaled_and_shifted_as_the_configuration_says() -> None:
    torch.manual_seed(0)
    plain = Autoencoder(_kl(scaling_factor=1.0).eval())
    network = _kl(scaling_factor=0.5, shift_factor=0.25).eval()
    network.load_state_dict(plain.network.state_dict())
    scaled, images = Autoencoder(network), pictures(2)
    with torch.no_grad():
        one, other = plain.encode(images), scaled.encode(images)
        assert torch.allclose(other.mean, (one.mean - 0.25) * 0.5)
        assert torch.allclose(other.std, one.std * 0.5)
        assert torch.allclose(scaled.decode(other.mean), plain.decode(one.mean), atol=1e-6)


def test_latents_are_normalised_channel_by_channel_where_the_configuration_says_so() -> None:
    film, images = made("film"), pictures(2)
    raw = film.network.encode(2 * images[:, :, None] - 1).latent_dist
    found = film.encode(images)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        expected = (raw.mean[:, channel, 0] - mean) / std
        assert torch.allclose(found.mean[:, channel], expected, atol=1e-6)
        assert torch.allclose(found.std[:, channel], raw.std[:, channel, 0] / std, atol=1e-6)
    decoded = film.network.decode(raw.mean).sample[:, :, 0]
    assert torch.allclose(film.decode(found.mean), ((decoded + 1) / 2).clamp(0, 1), atol=1e-5)


def test_an_autoencoder_without_a_posterior_draws_its_mean() -> None:
    found = made("tiny").encode(pictures(1))
    assert not found.std.any()
    assert torch.equal(found.sample(torch.Generator().manual_seed(0)), found.mean)
    both = Posterior.cat([found, found])
    assert len(both) == 2


def test_a_fingerprint_is_of_weights_and_configuration() -> None:
    one, other = made("kl"), made("kl")
    assert one.fingerprint == other.fingerprint
    assert len(one.fingerprint) == 16
    copied = one.copy()
    with torch.no_grad():
        copied.network.encoder.conv_in.weight.add_(0.01)
    assert one.fingerprint == other.fingerprint != copied.fingerprint
    other.network.register_to_config(scaling_factor=0.5)
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("name", MADE)
def test_a_folder_opens_whatever_class_it_names(name: str, tmp_path: Path) -> None:
    written = made(name)
    written.network.save_pretrained(tmp_path / "there")
    found = open_autoencoder(tmp_path / "there")
    assert found.fingerprint == written.fingerprint
    assert not any(p.requires_grad for p in found.network.parameters())
    assert torch.equal(found.encode(pictures(1)).mean, written.encode(pictures(1)).mean)


def test_what_is_no_autoencoder_or_out_of_bounds_is_refused(tmp_path: Path) -> None:
    made("film").network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, error, said in (
        ({"_class_name": "UNet2DConditionModel"}, UsageError, "no autoencoder"),
        ({"_class_name": "AutoencoderMine"}, UsageError, "no autoencoder"),
        ({"auto_map": {"AutoModel": "mine.Mine"}}, UsageError, "never run"),
        ({"num_res_blocks": 10**6}, UnlikenessError, "num_res_blocks = 1000000"),
        ({"base_dim": 10**9}, UnlikenessError, "base_dim = 1000000000"),
        ({"base_dim": 16}, UnlikenessError, "of shape"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(error, match=said):
            open_autoencoder(tmp_path)


def test_a_configuration_does_not_choose_the_size_of_the_first_picture() -> None:
    class Coarse:
        config: ClassVar[dict[str, Any]] = {"block_out_channels": [4] * 16, "latent_channels": 4}

    class Odd:
        config: ClassVar[dict[str, Any]] = {"latent_channels": 4}

    for network, said in ((Coarse(), "32768 pixels"), (Odd(), "cannot be used")):
        with pytest.raises(UnlikenessError, match=said):
            try_encoder(Autoencoder(network), "the autoencoder a")
