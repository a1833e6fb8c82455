"""LoRA files of other tools: every way of naming and every kind, against peft's and diffusers' own layers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_model
from tests.tiny_xl import tiny_xl
from torch import Tensor, nn

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.adapters import Adapter, find_lora, parse_loras
from unlikeness.diffusion.lora import add_lora, load_lora
from unlikeness.diffusion.lora_updates import weight_after
from unlikeness.diffusion.lora_writing import FILE, save_lora
from unlikeness.diffusion.single_file.names import unet_names
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return tiny_model(tmp_path_factory.mktemp("models"))


def weight(model: TextToImage, layer: str, part: str = "unet") -> Tensor:
    network = model.parts[part]
    known = dict(network.named_modules())
    found: Tensor = (known.get(layer) or known[layer.removeprefix("text_model.")]).weight
    return found


def factors(model: TextToImage, layer: str, part: str = "unet", *, rank: int = 2) -> tuple[Tensor, Tensor]:
    """(down, up) that fit the layer."""
    shape = weight(model, layer, part).shape
    draw = torch.Generator().manual_seed(len(layer))
    down = torch.randn(rank, *shape[1:], generator=draw)
    return down, torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=draw)


def product(down: Tensor, up: Tensor) -> Tensor:
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def read(model: TextToImage, folder: Path, tensors: Mapping[str, Tensor], **how: Any) -> TextToImage:
    file = folder / "lora.safetensors"
    save_file({name: one.contiguous() for name, one in tensors.items()}, file)
    return load_lora(model, file, **how)


def original(model: TextToImage, layer: str) -> str:
    unet = model.denoiser
    named = unet_names([f"{n}.weight" for n, _ in unet.named_modules()], unet.config.layers_per_block)
    return named[f"{layer}.weight"].removesuffix(".weight")


UNET = {
    "kohya": ("lora_unet_{_}.lora_down.weight", "lora_unet_{_}.lora_up.weight"),
    "kohya, original names": ("lora_unet_{o}.lora_down.weight", "lora_unet_{o}.lora_up.weight"),
    "peft": ("base_model.model.{.}.lora_A.weight", "base_model.model.{.}.lora_B.weight"),
    "peft, named": ("base_model.model.unet.{.}.lora_A.default.weight",
                    "base_model.model.unet.{.}.lora_B.default.weight"),
    "diffusers": ("unet.{.}.lora_A.weight", "unet.{.}.lora_B.weight"),
    "diffusers 0.2": ("unet.{.}.lora.down.weight", "unet.{.}.lora.up.weight"),
    "bare": ("{.}.lora_A.weight", "{.}.lora_B.weight"),
}  # fmt: skip


@pytest.mark.parametrize("layer", [LAYER, CONV])
@pytest.mark.parametrize("naming", UNET)
def test_each_way_of_naming_is_read(naming: str, layer: str, model: TextToImage, tmp_path: Path) -> None:
    down, up = factors(model, layer)
    words = {"{_}": layer.replace(".", "_"), "{.}": layer, "{o}": original(model, layer).replace(".", "_")}
    names = []
    for form in UNET[naming]:
        for word, value in words.items():
            form = form.replace(word, value)
        names.append(form)
    adapted = read(model, tmp_path, {names[0]: down, names[1]: up})
    expected = weight(model, layer) + product(down, up)
    assert torch.allclose(weight(adapted, layer), expected, atol=1e-5)
    assert [
        name
        for (name, a), b in zip(adapted.denoiser.named_parameters(), model.denoiser.parameters(), strict=True)
        if not torch.equal(a, b)
    ] == [f"{layer}.weight"]


def test_old_attention_processors_are_read(model: TextToImage, tmp_path: Path) -> None:
    attention, out = LAYER.removesuffix(".to_q"), LAYER.replace("to_q", "to_out.0")
    (a, b), (c, d) = factors(model, LAYER), factors(model, out)
    start = f"unet.{attention}.processor"
    adapted = read(model, tmp_path, {
        f"{start}.to_q_lora.down.weight": a, f"{start}.to_q_lora.up.weight": b,
        f"{start}.to_out_lora.down.weight": c, f"{start}.to_out_lora.up.weight": d,
    })  # fmt: skip
    assert torch.allclose(weight(adapted, LAYER), weight(model, LAYER) + product(a, b), atol=1e-5)
    assert torch.allclose(weight(adapted, out), weight(model, out) + product(c, d), atol=1e-5)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("lora_te_{}.lora_down.weight", "lora_te_{}.lora_up.weight"),
        ("lora_te1_{}.lora_down.weight", "lora_te1_{}.lora_up.weight"),
        ("text_encoder.{}.lora_linear_layer.down.weight", "text_encoder.{}.lora_linear_layer.up.weight"),
        ("text_encoder.{}.lora_A.weight", "text_encoder.{}.lora_B.weight"),
    ],
)
def test_text_encoders_are_read(down: str, up: str, model: TextToImage, tmp_path: Path) -> None:
    a, b = factors(model, TEXT, "text_encoder")
    name = TEXT.replace(".", "_") if down.startswith("lora_te") else TEXT
    adapted = read(model, tmp_path, {down.format(name): a, up.format(name): b})
    expected = weight(model, TEXT, "text_encoder") + product(a, b)
    assert torch.allclose(weight(adapted, TEXT, "text_encoder"), expected, atol=1e-5)
    assert adapted.conditioner is not model.conditioner


def test_scales_of_kohya_and_of_peft(model: TextToImage, tmp_path: Path) -> None:
    down, up = factors(model, LAYER)
    kohya = f"lora_unet_{LAYER.replace('.', '_')}"
    tensors = {f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up}
    before, change = weight(model, LAYER), product(down, up)
    adapted = read(model, tmp_path, {**tensors, f"{kohya}.alpha": torch.tensor(1.0)}, strength=-0.5)
    assert torch.allclose(weight(adapted, LAYER), before - 0.25 * change, atol=1e-5)

    peft_file = tmp_path / "peft" / "adapter_model.safetensors"
    peft_file.parent.mkdir()
    start = f"base_model.model.{LAYER}"
    save_file({f"{start}.lora_A.weight": down, f"{start}.lora_B.weight": up}, peft_file)
    for settings, scale in (
        ({"r": 2, "lora_alpha": 8}, 4.0),
        ({"r": 2, "lora_alpha": 8, "use_rslora": True}, 8 / 2**0.5),
        ({"r": 2, "lora_alpha": 8, "alpha_pattern": {"attn2.to_q": 2}, "peft_type": "LORA"}, 1.0),
    ):
        (peft_file.parent / "adapter_config.json").write_text(json.dumps(settings))
        adapted = load_lora(model, peft_file.parent)
        assert torch.allclose(weight(adapted, LAYER), before + scale * change, atol=1e-4)


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_a_written_file_is_read_here_and_by_plain_diffusers(
    form: str, model: TextToImage, tmp_path: Path
) -> None:
    tuned = model.copy()
    for p in add_lora(tuned, rank=2):
        p.data.normal_(generator=torch.Generator().manual_seed(p.numel()))
    file = save_lora(tuned, tmp_path, form=form)
    names = load_file(file)
    if form == "kohya":
        assert all(
            re.fullmatch(r"lora_unet_\w+\.(lora_down\.weight|lora_up\.weight|alpha)", n) for n in names
        )
        inside = f"lora_unet_{LAYER.replace('.', '_')}"
        layer = dict(tuned.denoiser.named_modules())[LAYER]
        assert torch.equal(names[f"{inside}.lora_down.weight"], layer.lora_A["default"].weight)
        assert torch.equal(names[f"{inside}.lora_up.weight"], layer.lora_B["default"].weight)
    z, t, c = torch.ones(1, 4, 8, 8), torch.tensor([5]), model.condition(["a dog"])
    pipe = StableDiffusionPipeline.from_pretrained(model.source)
    pipe.load_lora_weights(file.parent, weight_name=FILE)
    with torch.no_grad():
        expected = tuned.predict(z, t, c)
        assert torch.allclose(load_lora(model, file).predict(z, t, c), expected, atol=1e-4)
        assert torch.allclose(pipe.unet(z, t, encoder_hidden_states=c.tokens).sample, expected, atol=1e-4)
        assert not torch.allclose(model.predict(z, t, c), expected, atol=1e-2)


def test_stable_diffusion_xl_in_the_names_of_kohya(tmp_path: Path) -> None:
    model = tiny_xl(tmp_path)
    tuned = model.copy()
    for p in add_lora(tuned, rank=2):
        p.data.normal_(generator=torch.Generator().manual_seed(p.numel()))
    file = save_lora(tuned, tmp_path, form="kohya")
    names = {name.split(".")[0] for name in load_file(file)}
    assert "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_q" in names
    assert not [name for name in names if "_blocks_0_attentions" in name]
    z, t, c = torch.ones(1, 4, 8, 8), torch.tensor([5]), model.condition(["a dog"])
    with torch.no_grad():
        expected = tuned.predict(z, t, c)
        assert torch.allclose(load_lora(model, file).predict(z, t, c), expected, atol=1e-4)
        assert not torch.allclose(model.predict(z, t, c), expected, atol=1e-2)
    pipe = StableDiffusionXLPipeline.from_pretrained(model.source)
    pipe.load_lora_weights(file.parent, weight_name=FILE)
    model.family.predict(pipe.unet, z, t, c)
    with torch.no_grad():
        assert torch.allclose(model.family.predict(pipe.unet, z, t, c), expected, atol=1e-4)
    second = "text_model.encoder.layers.1.mlp.fc1"
    down, up = factors(model, second, "text_encoder_2")
    start = f"lora_te2_{second.replace('.', '_')}"
    adapted = read(model, tmp_path, {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up})
    expected = weight(model, second, "text_encoder_2") + product(down, up)
    assert torch.allclose(weight(adapted, second, "text_encoder_2"), expected, atol=1e-5)


def tuned_layer(config: Any, layer: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """(the weight that peft computes, what a file would hold) for one layer with random factors."""
    net = nn.Sequential()
    net.add_module("x", layer)
    config.target_modules = ["x"]
    adapted = peft.get_peft_model(net, config)
    draw = torch.Generator().manual_seed(1)
    for name, p in adapted.named_parameters():
        if "base_layer" not in name:
            p.data = torch.randn(p.shape, generator=draw) * 0.3 + ("magnitude" in name)
    state = peft.get_peft_model_state_dict(adapted)
    found: Any = next(one for one in adapted.modules() if isinstance(one, BaseTunerLayer))
    found.merge()
    merged: Tensor = found.get_base_layer().weight.detach().clone()
    return merged, {name.split(".x.")[-1]: one for name, one in state.items()}


LINEAR, CONVOLUTION = (12, 8), (8, 12, 3, 3)


def layer_of(shape: tuple[int, ...]) -> Any:
    torch.manual_seed(0)
    return nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2])


@pytest.mark.parametrize("shape", [LINEAR, CONVOLUTION])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("LoraConfig", {}),
        ("LoraConfig", {"use_dora": True}),
        ("LoHaConfig", {}),
        ("LoHaConfig", {"use_effective_conv2d": True}),
        ("LoKrConfig", {"decompose_factor": 2}),
        ("LoKrConfig", {"decompose_factor": 2, "decompose_both": True, "use_effective_conv2d": True}),
    ],
)
def test_each_kind_is_what_peft_computes(kind: str, settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    alpha = {"lora_alpha": 6} if kind == "LoraConfig" else {"alpha": 6}
    layer = layer_of(shape)
    before = layer.weight.detach().clone()
    expected, state = tuned_layer(getattr(peft, kind)(r=2, **alpha, **settings), layer)
    words = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_magnitude_vector": "magnitude",
             "lora_magnitude_vector.weight": "magnitude"}  # fmt: skip
    roles = {words.get(name, name): one for name, one in state.items()}
    assert not torch.allclose(before, expected, atol=1e-2)
    assert torch.allclose(weight_after(before, roles, scale=3.0, strength=1.0), expected, atol=1e-4)


def test_the_middle_factor_of_a_locon() -> None:
    draw = torch.Generator().manual_seed(0)
    up, mid, down = (
        torch.randn(*shape, generator=draw) for shape in ((8, 2, 1, 1), (2, 3, 3, 3), (3, 12, 1, 1))
    )
    expected = torch.einsum("pi,ijkl,jr->prkl", up[:, :, 0, 0], mid, down[:, :, 0, 0])
    found = weight_after(
        torch.zeros(8, 12, 3, 3), {"up": up, "mid": mid, "down": down}, scale=1.0, strength=1.0
    )
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("side", [0, 1])
def test_a_dora_scale_of_kohya_counts(side: int, model: TextToImage, tmp_path: Path) -> None:
    down, up = factors(model, LAYER)
    kohya, before = f"lora_unet_{LAYER.replace('.', '_')}", weight(model, LAYER)
    length = before.shape[side]
    magnitude = torch.linspace(1, 2, length).reshape((length, 1) if side == 0 else (1, length))
    if side == 1 and before.shape[0] == 1:
        pytest.skip("no telling")
    adapted = read(model, tmp_path, {
        f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up,
        f"{kohya}.dora_scale": magnitude,
    })  # fmt: skip
    new = before + product(down, up)
    expected = magnitude * new / new.norm(dim=1 - side, keepdim=True)
    assert torch.allclose(weight(adapted, LAYER), expected, atol=1e-5)


def test_what_is_not_read_is_refused_by_name(model: TextToImage, tmp_path: Path) -> None:
    kohya = f"lora_unet_{LAYER.replace('.', '_')}"
    for tensors, said in (
        ({f"{kohya}.oft_blocks": torch.zeros(2, 2)}, "of the kind OFT"),
        ({f"{kohya}.on_input": torch.zeros(2)}, "of the kind IA³"),
        ({f"{kohya}.dora_scale": torch.zeros(2)}, "without the update"),
        ({f"{kohya}.lora_down.weight": torch.zeros(2, 32)}, "lacks its up"),
        ({f"{kohya}.something": torch.zeros(2, 2)}, "is no tensor of a LoRA"),
        ({"lora_unet_nowhere.lora_down.weight": torch.zeros(2, 2)}, "no layer for lora_unet_nowhere"),
    ):
        with pytest.raises(UnlikenessError, match=said) as caught:
            read(model, tmp_path, tensors)
        assert "\n" not in str(caught.value)


def test_a_product_larger_than_the_weight_is_never_made() -> None:
    long = torch.zeros(1, 1).expand(1 << 20, 1)
    for roles in (
        {"up": long, "down": long.T},
        {"hada_w1_a": long, "hada_w1_b": long.T, "hada_w2_a": long, "hada_w2_b": long.T},
        {"lokr_w1_a": long, "lokr_w1_b": long.T, "lokr_w2": torch.zeros(2, 2)},
        {"lokr_w1": long, "lokr_w2": long},
    ):
        with pytest.raises(UnreadableError, match="for a weight of"):
            weight_after(torch.zeros(8, 4), roles, scale=None, strength=1.0)


def test_a_lora_of_another_family_names_both(model: TextToImage, tmp_path: Path) -> None:
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    with pytest.raises(UnlikenessError, match=r"for Stable Diffusion XL, and the model is Stable Diffusion;"):
        read(model, tmp_path, {f"{name}.lora_down.weight": torch.zeros(2, 2048)})
    with pytest.raises(UnlikenessError, match="was made for FLUX"):
        read(
            model,
            tmp_path,
            {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 2)},
        )


def test_files_and_strengths(model: TextToImage, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "mine.safetensors")
    file = str(tmp_path / "mine.safetensors")
    assert parse_loras([file, f"{file}:0.5", f"{file}:-1", "someone/some-lora:2"]) == [
        Adapter(file), Adapter(file, 0.5), Adapter(file, -1.0), Adapter("someone/some-lora", 2.0),
    ]  # fmt: skip
    assert find_lora(tmp_path) == Path(file)
    for text, said in (
        (f"{file}:strong", "is no number"), (f"{file}:nan", "must be from"), (f"{file}:1e9", "must be from"),
        (str(tmp_path / "none.safetensors"), "does not exist"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            parse_loras([text])
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="holds 2 files"):
        find_lora(tmp_path)


def test_several_add_up(model: TextToImage, tmp_path: Path) -> None:
    down, up = factors(model, LAYER)
    start = f"unet.{LAYER}"
    tensors = {f"{start}.lora_A.weight": down, f"{start}.lora_B.weight": up}
    twice = read(read(model, tmp_path, tensors, strength=0.5), tmp_path, tensors, strength=0.25)
    expected = weight(model, LAYER) + 0.75 * product(down, up)
    assert torch.allclose(weight(twice, LAYER), expected, atol=1e-5)
