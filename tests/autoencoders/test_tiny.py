"""Tiny autoencoders in their author's files: layouts, pixels in [0, 1], damage, and as surrogates."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from tests.autoencoders.tiny_files import decoder_weights, encoder_weights, merged, write
from tests.tiny import pictures

from unlikeness.autoencoders import Autoencoder
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.surrogates import Surrogates

LAYOUTS: dict[str, dict[str, Any]] = {
    "taesd": {"latents": 4}, "taef1": {"latents": 16}, "taef2": {"latents": 32, "pooled": True},
    "taesana": {"latents": 32, "factor": 32},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_opens_by_its_keys_with_the_decoder_beside_it(name: str, suffix: str, tmp_path: Path) -> None:
    given = LAYOUTS[name]
    file = write(tmp_path / f"{name}_encoder{suffix}", encoder_weights(**given))
    images = F.interpolate(pictures(2), size=(64, 64))
    alone = Autoencoder.open(file)
    assert (alone.factor, alone.channels) == (given.get("factor", 8), given["latents"])
    side = 64 // alone.factor
    found = alone.encode(images)
    assert found.mean.shape == (2, given["latents"], side, side)
    assert not found.std.any()
    with pytest.raises(UsageError, match="without its decoder"):
        alone.decode(found.mean)
    write(tmp_path / f"{name}_decoder{suffix}", decoder_weights(**given))
    both = Autoencoder.open(str(file))
    assert both.decode(found.mean).shape == images.shape
    assert torch.equal(both.encode(images).mean, found.mean)
    assert Autoencoder.open(file, decoder=False).fingerprint == alone.fingerprint


def test_the_answer_is_that_of_diffusers_own_class(tmp_path: Path) -> None:
    width = (8, 8, 8, 8)
    theirs = diffusers.AutoencoderTiny(
        encoder_block_out_channels=width, decoder_block_out_channels=width, latent_channels=4
    )
    state = merged(encoder_weights(), decoder_weights())
    theirs.load_state_dict({name: tensor.half().float() for name, tensor in state.items()})
    images = pictures(2)
    separate = write(tmp_path / "taesd_encoder.safetensors", encoder := encoder_weights())
    write(tmp_path / "taesd_decoder.safetensors", decoder := decoder_weights())
    theirs.load_state_dict({n: t.half().float() for n, t in merged(encoder, decoder).items()})
    one = write(tmp_path / "taesd.safetensors", merged(encoder, decoder))
    for file in (separate, one):
        ours = Autoencoder.open(file)
        expected = Autoencoder(theirs.eval()).encode(images).mean
        assert torch.allclose(ours.encode(images).mean, expected, atol=1e-5)
        decoded = Autoencoder(theirs).decode(expected)
        assert torch.allclose(ours.decode(expected), decoded, atol=1e-5)


def test_the_layers_see_pixels_from_zero_to_one(tmp_path: Path) -> None:
    file = write(tmp_path / "taesana_encoder.pth", encoder_weights(factor=32, latents=32))
    found = Autoencoder.open(file)
    seen: list[torch.Tensor] = []
    found.network.encoder[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = pictures(1)
    found.encode(images)
    assert torch.allclose(seen[0], images, atol=1e-6)
    assert found.network.encoder[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_pool_is_added_before_the_block(tmp_path: Path) -> None:
    weights = encoder_weights(latents=32, pooled=True)
    one = Autoencoder.open(write(tmp_path / "a_encoder.pth", weights))
    weights = {name: tensor.zero_() if "pool.3" in name else tensor for name, tensor in weights.items()}
    other = Autoencoder.open(write(tmp_path / "b_encoder.pth", weights))
    plain = {name: tensor for name, tensor in weights.items() if "pool" not in name}
    without = Autoencoder.open(write(tmp_path / "c_encoder.pth", plain))
    images = pictures(1)
    assert torch.allclose(other.encode(images).mean, without.encode(images).mean, atol=1e-6)
    assert not torch.allclose(one.encode(images).mean, without.encode(images).mean, atol=1e-6)


def test_what_is_no_tiny_autoencoder_is_one_sentence(tmp_path: Path) -> None:
    def change(**changed: torch.Tensor | None) -> dict[str, torch.Tensor]:
        weights: dict[str, Any] = encoder_weights()
        weights |= {name.replace("_", "."): tensor for name, tensor in changed.items()}
        return {name: tensor for name, tensor in weights.items() if tensor is not None}

    for number, (tensors, error, said) in enumerate(
        (
            (decoder_weights(), UsageError, "is a decoder"),
            ({"unet.weight": torch.zeros(2)}, UsageError, "no autoencoder"),
            (change(**{"14_weight": None, "14_bias": None}), UnlikenessError, "13 layers|14 layers"),
            (change(**{"14_weight": None}), UnlikenessError, "without a convolution"),
            (change(**{"0_weight": torch.zeros(2000, 3, 3, 3)}), UnlikenessError, "at most 1024"),
            (change(**{"0_weight": torch.zeros(8, 4, 3, 3)}), UnlikenessError, "three colours"),
            (change(**{"2_weight": torch.zeros(4, 8, 3, 3)}), UnlikenessError, "do not follow|of shape"),
            (change(**{"0_weight": torch.zeros(8, 3, 5, 5)}), UnlikenessError, "shape"),
            (change(**{"1_conv_2_weight": None}), UnlikenessError, "lacks 1 tensors"),
            ({}, UsageError, "no autoencoder"),
        )
    ):
        file = write(tmp_path / f"{number}_encoder.pth", tensors)
        with pytest.raises(error, match=said) as found:
            Autoencoder.open(file)
        assert str(file) in str(found.value)
    (tmp_path / "cut.pth").write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UnlikenessError, match="cannot be read"):
        Autoencoder.open(tmp_path / "cut.pth")
    with pytest.raises(UsageError, match="no file or folder"):
        Autoencoder.open(tmp_path / "none.pth")
    with pytest.raises(UsageError, match=r"no config\.json"):
        Autoencoder.open(tmp_path)


def test_a_decoder_of_another_model_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "taesd_encoder.pth", encoder_weights(latents=4))
    write(tmp_path / "taesd_decoder.pth", decoder_weights(latents=16))
    with pytest.raises(UnlikenessError, match="different models"):
        Autoencoder.open(file)


def test_files_become_an_ensemble(tmp_path: Path) -> None:
    names = ("taef2", "taesana")
    files = [write(tmp_path / f"{name}_encoder.pth", encoder_weights(**LAYOUTS[name])) for name in names]
    found = Surrogates.named(",".join(map(str, files)), resolution=64, device="cpu")
    assert [one.name for one in found] == ["taef2_encoder.pth", "taesana_encoder.pth"]
    assert found.resolution == 64
    assert not found.against.toy
    assert len(set(found.fingerprint.split())) == 2
    images = pictures(1).requires_grad_()
    for one in found:
        one.check()
        one.encode(images).mean.square().sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert found.conditions("a photo") == {}
    assert [one.fingerprint for one in Surrogates.named(files)] == found.fingerprint.split()
    with pytest.raises(UsageError, match="no autoencoder is given"):
        Surrogates.named(" , ")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_one_sentence_or_another_autoencoder(suffix: str, tmp_path: Path) -> None:
    whole = write(tmp_path / f"a{suffix}", encoder_weights(width=4)).read_bytes()
    generator = torch.Generator().manual_seed(0)
    file = tmp_path / f"taesd_encoder{suffix}"
    opened = 0
    for _ in range(30):
        data = bytearray(whole)
        place, value, cut = torch.randint(0, 1 << 30, (3,), generator=generator).tolist()
        data[place % len(data)] = value % 256
        data[(place % 2000) % len(data)] ^= value % 256
        file.write_bytes(data[: len(data) - cut % 3 * 100])
        with suppress(UnlikenessError):  # anything else fails the test
            Autoencoder.open(file)
            opened += 1
    assert opened < 30
