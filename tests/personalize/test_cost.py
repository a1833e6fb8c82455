"""What a personalization holds in memory, against what a real one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny import pictures, write_tiny
from tests.tiny_flow import write_flux, write_sd3, write_z_image
from tests.tiny_xl import write_tiny_xl
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.opening import outline
from unlikeness.diffusion.operations import operations
from unlikeness.gallery import to_pil
from unlikeness.personalize import create
from unlikeness.personalize.cost import memory

WRITERS = pytest.mark.parametrize("write", [write_tiny, write_flux, write_sd3, write_z_image])


def sizes(*networks: torch.nn.Module) -> int:
    every = {id(p): p.numel() * p.element_size() for network in networks for p in network.parameters()}
    return sum(every.values())


@WRITERS
@pytest.mark.parametrize("method", ["lora", "dreambooth"])
def test_memory_is_known_without_weights(write: Callable[..., Path], method: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    model, bare = TextToImage.from_pretrained(folder, device="cpu"), outline(folder)
    assert bare.device.type == "meta"
    assert bare.latent_shape == model.latent_shape
    made = create(method)
    expected = memory(model, made)
    assert memory(bare, made) == expected
    tuned, trained = made.trainable(model)  # type: ignore[attr-defined]
    held = sizes(*model.networks, tuned.denoiser)
    named = ("denoiser", "autoencoder and text encoders", "weights that are trained")
    assert sum(expected[name] for name in named) == held
    assert expected["their gradient"] == sum(p.numel() * 4 for p in trained)


@pytest.mark.parametrize("method", ["textual_inversion", "lora_ti", "custom_diffusion"])
def test_memory_of_a_new_word_is_known_without_weights(method: str, tmp_path: Path) -> None:
    folder = write_sd3(tmp_path / "model")
    model, bare = TextToImage.from_pretrained(folder, device="cpu"), outline(folder)
    made = create(method)
    assert memory(bare, made) == memory(model, made)
    vectors = 16 + 16
    least = vectors if method == "textual_inversion" else vectors + 1000
    assert memory(bare, made)["their gradient"] >= 4 * least


@pytest.mark.parametrize("write", [write_tiny, write_tiny_xl, write_flux, write_sd3, write_z_image])
def test_operations_are_known_without_weights(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    model, bare = TextToImage.from_pretrained(folder, device="cpu"), outline(folder)
    z_t = torch.zeros(1, *model.latent_shape)
    long = model.condition(["dog " * 20])  # Z-Image reads as many tokens as there are
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.predict(z_t, torch.zeros(1, dtype=torch.long), long)
    assert operations(bare) == pytest.approx(counter.get_total_flops(), rel=0.02)


@WRITERS
def test_a_lora_needs_no_second_denoiser(write: Callable[..., Path], tmp_path: Path) -> None:
    model = TextToImage.from_pretrained(write(tmp_path / "model"), device="cpu")
    before = [p.clone() for p in model.denoiser.parameters()]
    tuned, _ = create("lora").trainable(model)  # type: ignore[attr-defined]
    own = {p.data_ptr() for p in model.denoiser.parameters()}
    below = [p for name, p in tuned.denoiser.named_parameters() if "lora" not in name]
    assert all(p.data_ptr() in own for p in below)
    assert all(map(torch.equal, before, model.denoiser.parameters()))
    assert not any("lora" in name for name, _ in model.denoiser.named_parameters())


def test_half_precision_halves_the_weights(tmp_path: Path) -> None:
    folder = write_flux(tmp_path / "model")
    whole, half = (memory(outline(folder, dtype=dtype), create("lora")) for dtype in ("float32", "bfloat16"))
    assert half["denoiser"] * 2 == whole["denoiser"]
    assert half["their gradient"] == whole["their gradient"]


@pytest.mark.parametrize("write", [write_flux, write_z_image])
def test_a_dry_run_says_the_memory_and_writes_nothing(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, photos = write(tmp_path / "model"), tmp_path / "photos"
    photos.mkdir()
    to_pil(pictures(1)[0]).save(photos / "0.png")
    for weights in (folder / "transformer").glob("*.safetensors"):
        weights.unlink()  # they are not read
    words = ["personalize", "--model", str(folder), "--images", str(photos), "--class-noun", "dog"]
    assert main([*words, "--method", "lora", "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "memory held: " in told
    assert "time, roughly: " in told
    assert "MiB (denoiser " in told
    assert not (tmp_path / "out").exists()
