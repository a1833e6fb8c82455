"""LoRA files for FLUX and Stable Diffusion 3: other tools' names, against diffusers' own conversions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from tests.tiny import PIXELS
from tests.tiny_flow import T5_TOKENS, write_flux, write_sd3, write_z_image
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.families import family_of
from unlikeness.diffusion.lora import add_lora, load_lora
from unlikeness.diffusion.lora_writing import check_writable, save_lora
from unlikeness.diffusion.single_file.names import SD3, stacked
from unlikeness.errors import UnlikenessError, UsageError


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.from_pretrained(write_flux(tmp_path_factory.mktemp("m") / "flux"), device="cpu")


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.from_pretrained(write_sd3(tmp_path_factory.mktemp("m") / "sd3"), device="cpu")


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return TextToImage.from_pretrained(write_z_image(tmp_path_factory.mktemp("m") / "z"), device="cpu")


def adapted(model: TextToImage, *, text_encoder: bool = False, **how: Any) -> TextToImage:
    """A copy with a random adapter of rank 2."""
    tuned = model.copy(conditioner=True)
    draw = torch.Generator().manual_seed(0)
    for p in add_lora(tuned, rank=2, text_encoder=text_encoder, **how):
        p.data.normal_(std=0.1, generator=draw)
    return tuned


def drawn(model: TextToImage) -> Tensor:
    return model.generate(["a photo of a dog"], seeds=[3], steps=2)


def changes(before: Any, after: Any) -> dict[str, Tensor]:
    """The changed weights of a network, and by how much."""
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    return {name: b.data - a.data for (name, a), b in pairs if not torch.equal(a, b)}


@pytest.mark.parametrize("text_encoder", [False, True])
@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_what_is_written_for_other_tools_is_read_again(
    family: str, text_encoder: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(family)
    tuned = adapted(model, alpha=1.0, text_encoder=text_encoder)
    file = save_lora(tuned, tmp_path, form="kohya")
    names = load_file(file)
    own = r"double_blocks|single_blocks" if family == "flux" else "joint_blocks"
    encoders = r"|lora_te[12]_text_model_encoder_layers_\d_self_attn_\w+" if text_encoder else ""
    form = rf"(lora_unet_({own})_\d_\w+{encoders})\.(lora_down\.weight|lora_up\.weight|alpha)"
    assert [name for name in names if re.fullmatch(form, name) is None] == []
    assert any("lora_te" in name for name in names) is text_encoder
    again = drawn(load_lora(model, file))
    assert torch.allclose(again, drawn(tuned), atol=1e-5)
    assert (again - drawn(model)).abs().mean() > 1e-3


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_plain_diffusers_draws_with_it(form: str, tmp_path: Path) -> None:
    """diffusers splits the layers of blocks with one stream at FLUX's full width alone: see the next test."""
    model = TextToImage.from_pretrained(write_flux(tmp_path / "flux", singles=0), device="cpu")
    tuned = adapted(model, alpha=1.0, text_encoder=True)
    save_lora(tuned, tmp_path / "lora", form=form)
    pipe = diffusers.FluxPipeline.from_pretrained(tmp_path / "flux")
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(tmp_path / "lora")
    picture = pipe(
        "a photo of a dog", height=PIXELS, width=PIXELS, num_inference_steps=2, guidance_scale=3.5,
        generator=torch.Generator().manual_seed(3), output_type="pt", max_sequence_length=T5_TOKENS,
    ).images  # fmt: skip
    assert torch.allclose(picture, drawn(tuned), atol=1e-5)
    assert (drawn(tuned) - drawn(model)).abs().mean() > 1e-3


def test_a_block_of_full_width_is_split_by_diffusers_as_it_was_joined(tmp_path: Path) -> None:
    with torch.device("meta"):
        transformer = diffusers.FluxTransformer2DModel(num_layers=0, num_single_layers=1)
    model: Any = SimpleNamespace(
        denoiser=transformer, family=family_of("FluxPipeline"),
        parts=dict.fromkeys(("transformer", "text_encoder", "text_encoder_2"), transformer),
    )  # fmt: skip
    add_lora(model, rank=2, alpha=3.0)
    model.parts["text_encoder"] = model.parts["text_encoder_2"] = None
    factors: dict[str, Tensor] = {}
    for name, p in list(transformer.named_parameters()):
        if "lora_" in name:
            place, _, end = name.rpartition(".")
            factors[name] = torch.randn(p.shape, generator=torch.Generator().manual_seed(len(factors)))
            setattr(transformer.get_submodule(place), end, torch.nn.Parameter(factors[name]))
    file = save_lora(model, tmp_path, form="kohya")
    assert load_file(file)["lora_unet_single_blocks_0_linear1.lora_up.weight"].shape == (21504, 8)
    split = diffusers.FluxPipeline.lora_state_dict(str(file))
    split = {name: one for name, one in split.items() if "proj_mlp" not in name}
    assert len(split) == len(factors) == 6
    for name, one in split.items():
        own = factors[name.removeprefix("transformer.").replace(".weight", ".default.weight")]
        assert torch.allclose(one, own * 1.5 if ".lora_A." in name else own)


def other_names() -> dict[str, dict[str, Tensor]]:
    """A LoRA for the tiny FLUX as other trainers write it."""
    draw = torch.Generator().manual_seed(1)

    def pair(form: str, rows: int, rank: int = 2) -> dict[str, Tensor]:
        return {
            form.format("down"): torch.randn(rank, 32, generator=draw),
            form.format("up"): torch.randn(rows, rank, generator=draw),
        }

    kohya, mixed = "lora_unet_double_blocks_0_", "lora_transformer_transformer_blocks_0_attn_add_k_proj"
    comfy, xlabs = "diffusion_model.double_blocks.0.", "double_blocks.0.processor."
    return {
        "kohya": {
            **pair(f"{kohya}img_attn_qkv.lora_{{}}.weight", 96, 3),
            f"{kohya}img_attn_qkv.alpha": torch.tensor(1.5),
            **pair(f"{kohya}txt_attn_proj.lora_{{}}.weight", 32),
            **pair(f"{kohya}img_mlp_0.lora_{{}}.weight", 128),
            **pair("lora_unet_final_layer_adaLN_modulation_1.lora_{}.weight", 64),
        },
        "comfy": {
            **pair(f"{comfy}txt_attn.qkv.lora_{{}}.weight", 96),
            **pair(f"{comfy}img_attn.proj.lora_{{}}.weight", 32),
        },
        "xlabs": {**pair(f"{xlabs}qkv_lora2.{{}}.weight", 96), **pair(f"{xlabs}proj_lora1.{{}}.weight", 32)},
        "mixed": {**pair(f"{mixed}.lora_{{}}.weight", 32), f"{mixed}.alpha": torch.tensor(1.0)},
    }


@pytest.mark.parametrize("naming", ["kohya", "comfy", "xlabs", "mixed"])
def test_other_trainers_names_are_read_as_diffusers_converts_them(
    naming: str, flux: TextToImage, tmp_path: Path
) -> None:
    tensors = other_names()[naming]
    save_file(tensors, tmp_path / "lora.safetensors")
    converted = diffusers.FluxPipeline.lora_state_dict(dict(tensors))
    ours = changes(flux.denoiser, load_lora(flux, tmp_path / "lora.safetensors").denoiser)
    expected = {
        name.removeprefix("transformer.").replace(".lora_B", ""): one @ converted[name.replace("_B.", "_A.")]
        for name, one in converted.items()
        if ".lora_B." in name
    }
    assert ours.keys() == expected.keys()
    for name, change in expected.items():
        assert torch.allclose(ours[name], change, atol=1e-4)


def test_blocks_with_one_stream(flux: TextToImage, tmp_path: Path) -> None:
    """Rows of linear1 are those of q, k, v and the MLP; XLabs trains the first three."""
    draw = torch.Generator().manual_seed(1)
    down, up = torch.randn(2, 32, generator=draw), torch.randn(3 * 32 + 128, 2, generator=draw)
    block = "single_transformer_blocks.0"
    layers = [f"{block}.attn.to_q", f"{block}.attn.to_k", f"{block}.attn.to_v", f"{block}.proj_mlp"]
    for names, count in (
        (("lora_unet_single_blocks_0_linear1.lora_down.weight",
          "lora_unet_single_blocks_0_linear1.lora_up.weight"), 4),
        (("single_blocks.0.processor.qkv_lora.down.weight",
          "single_blocks.0.processor.qkv_lora.up.weight"), 3),
    ):  # fmt: skip
        rows = up if count == 4 else up[:96].contiguous()
        save_file({names[0]: down, names[1]: rows}, tmp_path / "lora.safetensors")
        ours = changes(flux.denoiser, load_lora(flux, tmp_path / "lora.safetensors").denoiser)
        parts = torch.split(rows @ down, [32, 32, 32, 128][:count])
        assert set(ours) == {f"{layer}.weight" for layer in layers[:count]}
        for layer, part in zip(layers[:count], parts, strict=True):
            assert torch.allclose(ours[f"{layer}.weight"], part, atol=1e-4)


def original(model: TextToImage, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Stable Diffusion 3 in its original layout, as our table joins its layers."""
    state = {**model.denoiser.state_dict(), **changed}
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    found = {"pos_embed": state["pos_embed.pos_embed"]}
    for name, layers in stacked(SD3, names).items():
        for end in ("weight", "bias"):
            whole = torch.cat([state[f"{layer}.{end}"] for layer in layers])
            width = state[f"{layers[0]}.weight"].shape[1]
            last = name.endswith("adaLN_modulation.1") and len(whole) == 2 * width
            found[f"{name}.{end}"] = torch.cat(whole.chunk(2)[::-1]) if last else whole
    for name, one in state.items():
        if match := re.fullmatch(r"transformer_blocks\.(\d+)\.(attn2?)\.norm_(added_)?([qk])\.weight", name):
            side = "context_block" if match[3] else "x_block"
            found[f"joint_blocks.{match[1]}.{side}.{match[2]}.ln_{match[4]}.weight"] = one
    return found


def test_the_layers_of_stable_diffusion_3_are_joined_as_diffusers_splits_them(sd3: TextToImage) -> None:
    own = sd3.denoiser.state_dict()
    split = convert_sd3_transformer_checkpoint_to_diffusers(original(sd3, {}))
    assert split.keys() == own.keys()
    assert [name for name, one in split.items() if not torch.equal(one, own[name])] == []


def test_a_modulation_has_its_halves_the_other_way_round(sd3: TextToImage, tmp_path: Path) -> None:
    name = "joint_blocks.1.context_block.adaLN_modulation.1"
    draw = torch.Generator().manual_seed(1)
    down, up = torch.randn(2, 16, generator=draw), torch.randn(32, 2, generator=draw)
    start = f"lora_unet_{name.replace('.', '_')}"
    file = tmp_path / "lora.safetensors"
    save_file({f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up}, file)
    [(layer, change)] = changes(sd3.denoiser, load_lora(sd3, file).denoiser).items()
    assert layer == "transformer_blocks.1.norm1_context.linear.weight"
    before = original(sd3, {})[f"{name}.weight"]
    checkpoint = original(sd3, {}) | {f"{name}.weight": before + up @ down}
    split = convert_sd3_transformer_checkpoint_to_diffusers(checkpoint)
    assert torch.allclose(sd3.denoiser.state_dict()[layer] + change, split[layer], atol=1e-5)


def test_a_family_without_such_names_is_refused_before_it_is_trained(
    flux: TextToImage, sd3: TextToImage, z_image: TextToImage
) -> None:
    for model in (flux, sd3, z_image):
        check_writable(model, "diffusers")
    check_writable(flux, "kohya")
    check_writable(sd3, "kohya")
    with pytest.raises(UsageError, match=r"kohya is not known for this kind of model \(Z-Image\)"):
        check_writable(z_image, "kohya")
    with pytest.raises(UsageError, match="has no text encoder"):
        add_lora(z_image.copy(), rank=2, text_encoder=True)


@pytest.mark.parametrize("naming", ["kohya", "comfy"])
def test_a_fused_layer_of_z_image_is_split(naming: str, z_image: TextToImage, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    layer = "layers.1.attention." if naming == "comfy" else "layers_1_attention_"
    start = f"diffusion_model.{layer}" if naming == "comfy" else f"lora_unet_{layer}"
    factors = {name: torch.randn(rows, 32, generator=draw) for name, rows in (("qkv", 96), ("out", 32))}
    down = torch.randn(2, 32, generator=draw)
    tensors = {f"{start}{name}.lora_down.weight": down.clone() for name in factors}
    tensors |= {f"{start}{name}.lora_up.weight": one[:, :2].contiguous() for name, one in factors.items()}
    tensors |= {f"{start}{name}.alpha": torch.tensor(1.0) for name in factors}
    save_file(tensors, tmp_path / "lora.safetensors")
    found = changes(z_image.denoiser, load_lora(z_image, tmp_path / "lora.safetensors").denoiser)
    inside = "layers.1.attention."
    wanted = {f"{inside}to_out.0.weight": factors["out"][:, :2] @ down / 2}
    for name, rows in zip(("to_q", "to_k", "to_v"), torch.split(factors["qkv"][:, :2], 32), strict=True):
        wanted[f"{inside}{name}.weight"] = rows @ down / 2
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], one, atol=1e-5) for name, one in wanted.items())
    if naming == "kohya":  # diffusers splits these names
        read = diffusers.ZImagePipeline.lora_state_dict(tensors)
        for name, one in wanted.items():
            at = f"transformer.{name.removesuffix('.weight')}"
            assert torch.allclose(read[f"{at}.lora_B.weight"] @ read[f"{at}.lora_A.weight"], one, atol=1e-5)


def test_each_family_is_named(
    flux: TextToImage, sd3: TextToImage, z_image: TextToImage, tmp_path: Path
) -> None:
    of_flux = save_lora(adapted(flux), tmp_path / "flux", form="kohya")
    of_sd3 = save_lora(adapted(sd3), tmp_path / "sd3", form="kohya")
    with pytest.raises(UnlikenessError, match="was made for FLUX, and the model is Stable Diffusion 3"):
        load_lora(sd3, of_flux)
    with pytest.raises(UnlikenessError, match="was made for Stable Diffusion 3, and the model is FLUX"):
        load_lora(flux, of_sd3)
    of_z_image = save_lora(adapted(z_image), tmp_path / "z")
    with pytest.raises(UnlikenessError, match="was made for Z-Image, and the model is FLUX"):
        load_lora(flux, of_z_image)
    with pytest.raises(UnlikenessError, match="was made for FLUX, and the model is Z-Image"):
        load_lora(z_image, of_flux)
