"""Whole autoencoders as single files in the original layouts, as written from diffusers' networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.autoencoders.tiny_files import write
from tests.tiny import pictures
from torch import Tensor

from unlikeness.autoencoders import Autoencoder
from unlikeness.errors import UnlikenessError, UsageError

SMALL: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 32,
}  # fmt: skip


def kl(latents: int, *, quant: bool = True) -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        **SMALL, latent_channels=latents, use_quant_conv=quant, use_post_quant_conv=quant
    ).eval()


def original(network: Any, *, prefix: str = "", inner: bool = False) -> dict[str, Tensor]:
    """The weights under the names of CompVis' code. inner: FLUX.2's, with quant_conv in the encoder."""
    found = {}
    last = len(network.config.block_out_channels) - 1
    for name, tensor in network.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{last - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("mid_block.attentions.0.", "mid.attn_1.").replace(
            "attn_1.group_norm", "attn_1.norm"
        )
        new = re.sub(r"attn_1\.to_(q|k|v)\.", r"attn_1.\1.", new).replace("to_out.0", "proj_out")
        if "attn_1" in new and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        if inner:
            new = re.sub(r"^quant_conv", "encoder.quant_conv", re.sub(r"^post_", "decoder.post_", new))
        found[prefix + new] = tensor.contiguous()
    return found


@pytest.mark.parametrize(
    ("file", "latents", "scale", "shift"),
    [
        ("vae-ft-mse-840000-ema-pruned", 4, 0.18215, 0), ("sdxl_vae", 4, 0.13025, 0),
        ("ae", 16, 0.3611, 0.1159), ("sd3_vae", 16, 1.5305, 0.0609),
    ],
)  # fmt: skip
def test_a_file_opens_as_the_model_that_it_names(
    file: str, latents: int, scale: float, shift: float, tmp_path: Path
) -> None:
    network = kl(latents, quant=latents == 4)
    found = Autoencoder.open(write(tmp_path / f"{file}.safetensors", original(network)))
    assert (found.channels, found.factor) == (latents, 2)
    images = pictures(1)
    network.load_state_dict({name: tensor.half().float() for name, tensor in network.state_dict().items()})
    raw = network.encode(2 * images - 1).latent_dist.mean
    assert torch.allclose(found.encode(images).mean, (raw - shift) * scale, atol=1e-4)
    expected = ((network.decode(raw).sample + 1) / 2).clamp(0, 1)
    assert torch.allclose(found.decode((raw - shift) * scale), expected, atol=1e-4)


def test_a_checkpoint_of_a_whole_model_and_diffusers_weights_alone_open_too(tmp_path: Path) -> None:
    network, images = kl(4), pictures(1)
    whole = {
        **original(network, prefix="first_stage_model."),
        "model.diffusion_model.out.0.bias": torch.ones(2),
    }
    files = [
        write(tmp_path / "sd_xl_base_1.0.safetensors", whole),
        write(tmp_path / "diffusion_xl.safetensors", dict(network.state_dict())),
        write(tmp_path / "sdxl.pth", original(network)),
    ]
    first, *others = (Autoencoder.open(file, decoder=False).encode(images).mean for file in files)
    assert all(torch.allclose(first, other, atol=1e-5) for other in others)


def flux2() -> Any:
    torch.manual_seed(0)
    network = diffusers.AutoencoderKLFlux2(**SMALL, latent_channels=4).eval()
    network.bn.running_mean.uniform_(-1, 1)
    network.bn.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("inner", [True, False])
def test_the_latents_of_flux2_are_normalised_as_its_denoiser_sees_them(inner: bool, tmp_path: Path) -> None:
    network, images = flux2(), pictures(1)
    network.load_state_dict({name: t.half().to(t.dtype) for name, t in network.state_dict().items()})
    tensors = original(network, inner=True) if inner else dict(network.state_dict())
    found = Autoencoder.open(write(tmp_path / "flux2-vae.safetensors", tensors))
    raw = network.encode(2 * images - 1).latent_dist.mean
    patched = diffusers.Flux2Pipeline._patchify_latents(raw)
    seen = network.bn(patched)
    expected = diffusers.Flux2Pipeline._unpatchify_latents(seen)
    latents = found.encode(images).mean
    assert torch.allclose(latents, expected, atol=1e-3)
    decoded = ((network.decode(raw).sample + 1) / 2).clamp(0, 1)
    assert torch.allclose(found.decode(latents), decoded, atol=1e-3)


def test_qwens_and_wans_file_opens_as_a_film_of_one_frame(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = diffusers.AutoencoderKLQwenImage(base_dim=8, z_dim=16).eval()
    names = {"norm1.gamma": "residual.0.gamma", "conv1": "residual.2", "norm2.gamma": "residual.3.gamma"}
    names |= {"conv2": "residual.6", "conv_shortcut": "shortcut"}
    found: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        new = re.sub(r"^post_quant_conv", "conv2", re.sub(r"^quant_conv", "conv1", name))
        new = new.replace("coder.conv_in", "coder.conv1").replace("coder.conv_out", "coder.head.2")
        new = new.replace("coder.norm_out", "coder.head.0").replace("mid_block.attentions.0", "middle.1")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"middle.{2 * int(m[1])}", new)
        new = re.sub(
            r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}", new
        )
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"upsamples.{4 * int(m[1]) + 3}", new)
        new = new.replace("down_blocks", "downsamples")
        if re.match(r"\w+\.(middle|upsamples|downsamples)", new):
            for ours, theirs in names.items():
                new = re.sub(rf"\.{re.escape(ours)}(?=\.|$)", f".{theirs}", new)
        found[new] = tensor
    opened = Autoencoder.open(write(tmp_path / "qwen_image_vae.safetensors", found))
    assert (opened.channels, opened.factor) == (16, 8)
    images = pictures(1)
    network.load_state_dict({name: tensor.half().float() for name, tensor in network.state_dict().items()})
    assert torch.allclose(opened.encode(images).mean, Autoencoder(network).encode(images).mean, atol=1e-3)


def test_other_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    weights = original(kl(4))
    cases: list[tuple[dict[str, Tensor], type[Exception], str]] = [
        ({"model.layers.0.weight": torch.zeros(2)}, UsageError, "no autoencoder whose layout"),
        ({n: t for n, t in weights.items() if "encoder.conv_out" not in n}, UnlikenessError, "last layer"),
        ({n: t for n, t in weights.items() if "decoder.conv_in" not in n}, UnlikenessError, "lacks 2"),
        (weights | {"encoder.conv_in.weight": torch.zeros(32, 4, 3, 3)}, UnlikenessError, "of shape"),
        (weights | {"encoder.down.0.block.0.conv1.weight": torch.zeros(20000, 1)}, UnlikenessError, "20000"),
        (weights | {"encoder.down.9.block.0.conv1.weight": torch.zeros(3, 1)}, UnlikenessError, "fetch"),
        ({"encoder.conv1.weight": torch.zeros(8, 3), "conv2.weight": torch.zeros(3, 3)}, UsageError, "Wan"),
        (
            {"encoder.conv1.weight": torch.zeros(8, 3), "conv2.weight": torch.zeros(16, 3)},
            UnlikenessError,
            "lacks|shape",
        ),
    ]
    for number, (tensors, error, said) in enumerate(cases):
        file = write(tmp_path / f"{number}.safetensors", tensors)
        with pytest.raises(error, match=said) as found:
            Autoencoder.open(file)
        assert str(file) in str(found.value)
        assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "tensors",
    [
        {"encoder.conv1.weight": torch.tensor(1.0), "conv2.weight": torch.tensor(1.0)},
        {
            "encoder.down_blocks.0.resnets.0.conv1.weight": torch.tensor(1.0),
            "encoder.conv_out.weight": torch.zeros(8, 4, 1, 1),
        },
    ],
)
def test_a_number_in_the_place_of_a_convolution_is_one_sentence(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(UnlikenessError, match=r"no autoencoder of Wan|is no convolution"):
        Autoencoder.open(path)
