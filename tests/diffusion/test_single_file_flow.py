"""Single files of flow transformers: Stable Diffusion 3 and FLUX.1, whole, or the transformer alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import huggingface_hub
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from tests.original import flux_transformer, sd3_transformer, write_single
from tests.original import original as original_of
from tests.tiny_flow import write_flux, write_sd3

from unlikeness.diffusion import TextToImage, hub
from unlikeness.diffusion.opening import outline
from unlikeness.diffusion.single_file import opening as single_file
from unlikeness.diffusion.single_file.kinds import FLUX, Found, found_in, look
from unlikeness.diffusion.single_file.writing import write_file
from unlikeness.errors import UnlikenessError, UsageError

KINDS: dict[str, Any] = {"flux": write_flux, "sd3": write_sd3}
MODEL = "model.diffusion_model."


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written: Path = KINDS[kind](tmp_path_factory.mktemp("models") / kind)
    return written


@pytest.fixture(scope="module")
def model(folder: Path) -> TextToImage:
    return TextToImage.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def alone(kind: str, model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The transformer's file, as its authors offer it."""
    file = tmp_path_factory.mktemp("alone") / "transformer.safetensors"
    tensors = (flux_transformer if kind == "flux" else sd3_transformer)(model.denoiser)
    save_file({name: one.contiguous().clone() for name, one in tensors.items()}, file)
    return file


def same(one: TextToImage, other: TextToImage) -> bool:
    def weights(model: TextToImage) -> dict[str, torch.Tensor]:
        return {f"{p}.{k}": v for p in model.family.networks for k, v in model.parts[p].state_dict().items()}

    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_whole_file_opens_and_a_changed_transformer_goes_back(
    kind: str, folder: Path, model: TextToImage, tmp_path: Path
) -> None:
    file = write_single(model, tmp_path / "model.safetensors", kind)
    with pytest.raises(UsageError, match="without the tokenizer of its T5; give --model-config"):
        hub.check_name(str(file))
    assert "in its original layout" in str(hub.check_name(str(file), config=str(folder)))
    opened = TextToImage.from_pretrained(file, device="cpu", model_config=folder)
    assert same(opened, model)
    assert write_file(opened, tmp_path / "same.safetensors").read_bytes() == file.read_bytes()
    with torch.no_grad():
        opened.denoiser.norm_out.linear.bias[0] += 1  # its halves are in the other order in the file
        opened.denoiser.transformer_blocks[0].attn.to_k.weight.add_(1)
    before, after = load_file(file), load_file(write_file(opened, tmp_path / "new.safetensors"))
    half, third = opened.denoiser.norm_out.linear.bias.shape[0] // 2, opened.denoiser.inner_dim
    changed = {name: (before[name] != after[name]).nonzero()[:, 0] for name in before}
    rows = {name: (int(at.min()), int(at.max())) for name, at in changed.items() if len(at)}
    keys = "double_blocks.0.img_attn.qkv" if kind == "flux" else "joint_blocks.0.x_block.attn.qkv"
    assert rows == {
        f"{MODEL}final_layer.adaLN_modulation.1.bias": (half, half),
        f"{MODEL}{keys}.weight": (third, 2 * third - 1),
    }


def test_the_transformer_alone_takes_the_rest_from_a_folder(
    folder: Path, model: TextToImage, alone: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"without vae, text_encoder.* give --model-config") as caught:
        TextToImage.from_pretrained(alone, device="cpu")
    assert "\n" not in str(caught.value)
    rest = tmp_path / "rest"
    shutil.copytree(folder, rest)
    (rest / "transformer" / "diffusion_pytorch_model.safetensors").unlink()  # not read
    opened = TextToImage.from_pretrained(alone, device="cpu", model_config=rest)
    assert same(opened, model)
    how: dict[str, Any] = {"seeds": [1], "steps": 2}
    drawn = opened.generate(["a dog"], **how)  # of the same weights at other places in memory
    torch.testing.assert_close(drawn, model.generate(["a dog"], **how), atol=1e-5, rtol=0)
    bare = outline(alone, dtype="float32", model_config=rest)
    assert {p.device.type for network in bare.networks for p in network.parameters()} == {"meta"}
    assert [p.shape for p in bare.denoiser.parameters()] == [p.shape for p in model.denoiser.parameters()]
    shutil.rmtree(rest / "vae")
    (rest / "vae").mkdir()
    shutil.copy(folder / "vae" / "config.json", rest / "vae")
    with pytest.raises(UsageError, match=r"has no weights in vae/"):
        TextToImage.from_pretrained(alone, device="cpu", model_config=rest)


def test_of_a_hub_name_only_what_the_file_lacks_is_fetched(
    kind: str, folder: Path, model: TextToImage, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    asked: list[str] = []

    def model_info(self: Any, repo: str, **kwargs: Any) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    def download(repo: str, **kwargs: Any) -> str:
        asked[:] = kwargs["allow_patterns"]
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    opened = TextToImage.from_pretrained(alone, device="cpu", model_config="someone/whole")
    assert same(opened, model)
    weights = {name.partition("/")[0] for name in asked if name.endswith(".safetensors")}
    assert weights == {name for name in model.family.networks if name != "transformer"}
    assert {"transformer/config.json", "tokenizer/vocab.json"} <= set(asked)
    outline(alone, model_config="someone/whole")
    assert not any(name.endswith(".safetensors") for name in asked)
    with pytest.raises(UsageError, match="is no folder here; give a diffusers folder or a hub name"):
        hub.check_name(str(alone), config="./nowhere/at/all")


def test_a_relative_with_other_layers_is_refused(tmp_path: Path) -> None:
    dev = TextToImage.from_pretrained(write_flux(tmp_path / "dev"), device="cpu")
    schnell = write_flux(tmp_path / "schnell", guidance=False)
    file = write_single(dev, tmp_path / "model.safetensors", "flux")
    with pytest.raises(UnlikenessError, match=r"has 4 more tensors, guidance_in\.") as caught:
        TextToImage.from_pretrained(file, device="cpu", model_config=schnell)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="predicts a velocity; leave --prediction out"):
        hub.check_name(str(file), prediction="v", config=str(schnell))


def test_without_t5_a_stable_diffusion_3_needs_no_folder_but_its_size(tmp_path: Path) -> None:
    folder = write_sd3(tmp_path / "sd3", t5=False)
    model = TextToImage.from_pretrained(folder, device="cpu")
    file = write_single(model, tmp_path / "model.safetensors", "sd3")
    assert "Stable Diffusion 3, in its original layout" in str(hub.check_name(str(file)))
    with pytest.raises(UnlikenessError, match="of another size than in Stable Diffusion 3"):
        TextToImage.from_pretrained(file, device="cpu")  # the carried configuration is of full size
    whole = write_sd3(tmp_path / "with-t5")
    opened = TextToImage.from_pretrained(file, device="cpu", model_config=whole)
    assert list(opened.conditioner.encoders) == ["text_encoder", "text_encoder_2"]  # the file's own choice
    assert same(opened, model)


def test_plain_diffusers_opens_the_same(tmp_path: Path) -> None:
    model = TextToImage.from_pretrained(write_sd3(tmp_path / "sd3"), device="cpu")
    file = write_single(model, tmp_path / "model.safetensors", "sd3")
    config = str(tmp_path / "sd3" / "transformer")
    theirs = diffusers.SD3Transformer2DModel.from_single_file(file, config=config).state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in model.denoiser.state_dict().items())


def test_names_of_flux_are_those_of_diffusers() -> None:
    """diffusers converts FLUX.1 at its own width only; here each tensor has that many rows, of one column."""
    with torch.device("meta"):
        network = diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    rows = {
        name: torch.arange(one.shape[0]).reshape(-1, *[1] * (one.ndim - 1)) + 100_000 * i
        for i, (name, one) in enumerate(network.state_dict().items())
    }
    stand_in = SimpleNamespace(state_dict=lambda: rows)
    original = flux_transformer(stand_in)
    converted = convert_flux_transformer_checkpoint_to_diffusers(dict(original))
    found = Found(Path("x"), FLUX, {"transformer": ""}, "flow")
    ours = single_file.converted(found, "transformer", original, stand_in)
    assert ours.keys() == converted.keys() == rows.keys()
    assert all(torch.equal(converted[name], rows[name]) for name in rows)
    assert all(torch.equal(ours[name], rows[name]) for name in rows)


@pytest.mark.parametrize(
    "said",
    [
        {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 192},
        {"num_layers": 38, "num_attention_heads": 38, "pos_embed_max_size": 192, "qk_norm": "rms_norm"},
        {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 384, "qk_norm": "rms_norm",
         "dual_attention_layers": list(range(13))},
    ],
    ids=["3-medium", "3.5-large", "3.5-medium"],
)  # fmt: skip
def test_the_shapes_of_a_stable_diffusion_3_say_its_settings(said: dict[str, Any]) -> None:
    said = {**said, "caption_projection_dim": 64 * said["num_attention_heads"]}
    with torch.device("meta"):
        network = diffusers.SD3Transformer2DModel(
            sample_size=128, in_channels=16, attention_head_dim=64, joint_attention_dim=4096,
            pooled_projection_dim=2048, **said,
        )  # fmt: skip
    shapes = {name: tuple(one.shape) for name, one in sd3_transformer(network).items()}
    found = found_in(Path("x.safetensors"), shapes, {})
    assert found.settings == {**said, "sample_size": 128}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("distilled_guidance_layer.norms.0.scale", "a Chroma"),
        ("double_stream_modulation_img.lin.weight", "a FLUX.2"),
        ("txt_in.individual_token_refiner.blocks.0.norm1.weight", "a HunyuanVideo"),
    ],
)  # fmt: skip
def test_models_whose_names_begin_alike_are_told(name: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(2), "double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(UsageError, match=f"is {said}, which is not supported"):
        look(file)


def test_a_transformer_that_reads_a_picture_too_is_told(
    kind: str, alone: Path, folder: Path, tmp_path: Path
) -> None:
    """FLUX.1 Fill and Control, and their like."""
    tensors, first = load_file(alone), "img_in.weight" if kind == "flux" else "x_embedder.proj.weight"
    tensors[first] = torch.cat([tensors[first]] * 2, dim=1)
    save_file(tensors, tmp_path / "fill.safetensors")
    with pytest.raises(UsageError, match=r"of 32 input channels, not 16 \(for inpainting.*; give its text"):
        TextToImage.from_pretrained(tmp_path / "fill.safetensors", device="cpu", model_config=folder)


def test_a_pickle_has_an_outline_too(tmp_path: Path) -> None:
    folder = write_flux(tmp_path / "flux")
    model = TextToImage.from_pretrained(folder, device="cpu")
    torch.save(original_of(model.parts, "flux"), tmp_path / "model.ckpt")
    bare = outline(tmp_path / "model.ckpt", dtype="bfloat16", model_config=folder)
    sizes = [sum(p.numel() for p in one.denoiser.parameters()) for one in (bare, model)]
    assert sizes[0] == sizes[1]
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == bare.family.pipeline
