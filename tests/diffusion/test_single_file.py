"""Checkpoints in one file: what they are is read from their header, and they open as their folder does."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tests.original import original, write_single
from tests.tiny import write_tiny
from tests.tiny_xl import write_tiny_xl

from unlikeness.diffusion import TextToImage, hub
from unlikeness.diffusion.adapters import parse_embeddings, parse_loras
from unlikeness.diffusion.loading import load_scheduler, read_index
from unlikeness.diffusion.single_file.carried import clip_words, configurations, write_folder
from unlikeness.diffusion.single_file.kinds import KINDS, Found, look
from unlikeness.diffusion.single_file.opening import converted
from unlikeness.diffusion.single_file.writing import write_file
from unlikeness.diffusion.tokens import load_tokenizer
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.building import build
from unlikeness.networks.configs import read_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> TextToImage:
    return TextToImage.from_pretrained(folder, device="cpu")


def parts_of(model: TextToImage) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key.removeprefix('text_model.')}": one
        for name in model.family.networks
        for key, one in model.parts[name].state_dict().items()
        if "position_ids" not in key
    }


def same(one: TextToImage, other: TextToImage) -> bool:
    a, b = parts_of(one), parts_of(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_opens_as_its_folder_does(
    kind: str, suffix: str, folder: Path, model: TextToImage, tmp_path: Path
) -> None:
    file = write_single(model, tmp_path / f"model{suffix}", kind)
    opened = TextToImage.from_pretrained(file, device="cpu", prediction="epsilon", model_config=folder)
    assert same(opened, model)
    how: dict[str, Any] = {"seeds": [1], "steps": 2}
    assert torch.equal(opened.generate(["a dog"], **how), model.generate(["a dog"], **how))
    saved = opened.save_pretrained(tmp_path / "saved")
    assert same(TextToImage.from_pretrained(saved, device="cpu"), model)


def test_stable_diffusion_xl_opens_and_goes_back(tmp_path: Path) -> None:
    config = write_tiny_xl(tmp_path / "xl")
    model = TextToImage.from_pretrained(config, device="cpu")
    file = write_single(model, tmp_path / "model.safetensors", "sdxl")
    assert "Stable Diffusion XL" in str(hub.check_name(str(file)))
    opened = TextToImage.from_pretrained(file, device="cpu", model_config=config)
    assert same(opened, model)
    how: dict[str, Any] = {"seeds": [1], "steps": 2}
    assert torch.equal(opened.generate(["a dog"], **how), model.generate(["a dog"], **how))
    assert write_file(opened, tmp_path / "same.safetensors").read_bytes() == file.read_bytes()
    with torch.no_grad():
        opened.denoiser.conv_in.weight.add_(1)
        opened.denoiser.add_embedding.linear_1.weight.add_(1)
    before, after = load_file(file), load_file(write_file(opened, tmp_path / "new.safetensors"))
    start = "model.diffusion_model."
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        f"{start}input_blocks.0.0.weight", f"{start}label_emb.0.0.weight",
    }  # fmt: skip


def test_plain_diffusers_opens_the_same(folder: Path, model: TextToImage, tmp_path: Path) -> None:
    file = write_single(model, tmp_path / "model.safetensors", "sd1")
    plain = StableDiffusionPipeline.from_single_file(file, config=str(folder), local_files_only=True)
    opened = TextToImage.from_pretrained(file, device="cpu", model_config=folder)
    for name in ("unet", "vae"):
        ours, theirs = opened.parts[name].state_dict(), getattr(plain, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_a_file_is_is_said_from_its_header(model: TextToImage, tmp_path: Path) -> None:
    file = write_single(model, tmp_path / "model.safetensors", "sd1")
    assert hub.check_name(str(file)) == (
        f"{file} is a single file of Stable Diffusion 1, in its original layout, with epsilon-prediction"
    )
    assert "v-prediction" in str(hub.check_name(str(file), prediction="v"))
    file = write_single(model, tmp_path / "sd2.safetensors", "sd2")
    with pytest.raises(UsageError, match="does not say what it predicts; give --prediction"):
        hub.check_name(str(file))
    said: dict[str, Any] = {"modelspec.prediction_type": "v"}
    told = write_single(model, tmp_path / "told.safetensors", "sd2", **said)
    assert "v-prediction" in str(hub.check_name(str(told)))


def test_prediction_type_is_taken_from_the_option(folder: Path, model: TextToImage, tmp_path: Path) -> None:
    file = write_single(model, tmp_path / "model.safetensors", "sd2")
    opened = TextToImage.from_pretrained(file, device="cpu", prediction="v", model_config=folder)
    assert opened.schedule.prediction_type == "v_prediction"
    with pytest.raises(UsageError, match="must be one of epsilon, v"):
        TextToImage.from_pretrained(file, prediction="eps")
    with pytest.raises(UsageError, match="--prediction is for single files"):
        TextToImage.from_pretrained(folder, prediction="v")


def test_what_the_file_says_comes_before_the_given_configuration(
    folder: Path, model: TextToImage, tmp_path: Path
) -> None:
    tensors = {**original(model.parts, "sd1"), "v_pred": torch.zeros(1)}
    save_file(tensors, tmp_path / "model.safetensors")
    opened = TextToImage.from_pretrained(tmp_path / "model.safetensors", device="cpu", model_config=folder)
    assert opened.schedule.prediction_type == "v_prediction"


def test_a_folder_that_holds_only_such_a_file_opens(folder: Path, model: TextToImage, tmp_path: Path) -> None:
    write_single(model, tmp_path / "model.safetensors", "sd1")
    (tmp_path / "README.md").write_text("A model.")
    assert "Stable Diffusion 1" in str(hub.check_name(str(tmp_path)))
    assert same(TextToImage.from_pretrained(tmp_path, device="cpu", model_config=folder), model)
    write_single(model, tmp_path / "other.safetensors", "sd1")
    with pytest.raises(UsageError, match=r"holds 2 checkpoints .* give one of the files"):
        TextToImage.from_pretrained(tmp_path, device="cpu")


def test_without_configurations_another_size_is_told(model: TextToImage, tmp_path: Path) -> None:
    file = write_single(model, tmp_path / "model.safetensors", "sd1")
    with pytest.raises(UnlikenessError, match=r"of another size than in Stable Diffusion 1 .*--model-config"):
        TextToImage.from_pretrained(file, device="cpu")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lora_unet_mid.lora_up.weight"], "is a LoRA"),
        (["unet.a.processor.to_q_lora.up.weight"], "is a LoRA"),
        (["emb_params"], "is a Textual Inversion embedding"),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "holds an autoencoder alone"),
        (["first_stage_model.encoder.conv_in.weight"], "holds an autoencoder alone"),
        (["double_blocks.0.img_attn.qkv.weight"], "is a FLUX.1 without vae, text_encoder and text_encoder_2"),
        (["joint_blocks.0.x.weight"], "is a Stable Diffusion 3 without vae"),
        (["down_blocks.0.resnets.0.conv1.weight"], "holds a denoiser in diffusers' layout alone"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "Diffusion 1 without vae and text_encoder"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "holds a text encoder alone"),
        (["control_model.input_blocks.0.0.weight"], "is a ControlNet"),
        (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "is an adapter for pictures"),
        (["redux_down.weight"], "is an adapter for pictures"),
        (["x.weight"], r"holds no model of a known kind \(its first tensors: x.weight\)"),
    ],
)
def test_parts_are_told_for_what_they_are(names: list[str], said: str, tmp_path: Path) -> None:
    file = tmp_path / "part.safetensors"
    save_file({name: torch.zeros(2, 2) for name in names}, file)
    with pytest.raises(UsageError, match=said) as caught:
        hub.check_name(str(file))
    assert "\n" not in str(caught.value)


def test_an_inpainting_model_is_refused(model: TextToImage, tmp_path: Path) -> None:
    tensors = original(model.parts, "sd1")
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(16, 9, 3, 3)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="of 9 input channels"):
        hub.check_name(str(tmp_path / "model.safetensors"))


def test_damaged_files_are_one_sentence(model: TextToImage, tmp_path: Path) -> None:
    file = write_single(model, tmp_path / "model.safetensors", "sd1")
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    name = "model.diffusion_model.out.2.weight"

    def with_header(**changes: Any) -> bytes:
        text = json.dumps({**header, name: {**header[name], **changes}}).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    for content in (
        whole[: len(whole) // 2], whole[: length // 2], b"", b"x" * 99, with_header(shape=[10**9, 10**9]),
        with_header(data_offsets=[0, 10**12]), with_header(shape=["a"]), with_header(dtype="F1024"),
        (10**15).to_bytes(8, "little") + b"{",
    ):  # fmt: skip
        file.write_bytes(content)
        began = time.perf_counter()
        with pytest.raises(UnlikenessError, match="cannot be read") as caught:
            hub.check_name(str(file))
        assert time.perf_counter() - began < 2
        assert "\n" not in str(caught.value)


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return (exec, ("raise SystemExit(3)",))

    torch.save({"state_dict": {"a": Bad()}}, tmp_path / "model.ckpt")
    with pytest.raises(UnlikenessError, match="which is refused: only tensors are read"):
        TextToImage.from_pretrained(tmp_path / "model.ckpt", device="cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_a_changed_denoiser_goes_back_into_its_layout(
    kind: str, dtype: torch.dtype, folder: Path, model: TextToImage, tmp_path: Path
) -> None:
    file = write_single(
        model, tmp_path / "model.safetensors", kind, dtype=dtype, **{"modelspec.hash_sha256": "x", "a": "b"}
    )
    opened = TextToImage.from_pretrained(file, device="cpu", prediction="epsilon", model_config=folder)
    same_bytes = write_file(opened, tmp_path / "same.safetensors").read_bytes()
    assert same_bytes[-len(same_bytes) // 2 :] == file.read_bytes()[-len(same_bytes) // 2 :]
    changed = opened.copy()
    target = changed.denoiser.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight
    with torch.no_grad():
        target.add_(0.25)
    written = write_file(changed, tmp_path / "changed.safetensors")
    before, after = load_file(file), load_file(written)
    assert before.keys() == after.keys()
    name = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    assert [key for key in before if not torch.equal(before[key], after[key])] == [name]
    assert torch.equal(after[name], target.to(dtype))
    assert all(before[key].dtype == after[key].dtype for key in before)
    again = TextToImage.from_pretrained(written, device="cpu", prediction="epsilon", model_config=folder)
    assert torch.equal(
        again.denoiser.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight,
        target.to(dtype).float(),
    )
    assert b"modelspec.hash" not in written.read_bytes()


def test_averages_of_unchanged_weights_do_not_stay(folder: Path, model: TextToImage, tmp_path: Path) -> None:
    tensors = original(model.parts, "sd1")
    tensors |= {
        "model_ema." + name.replace(".", ""): one.clone()
        for name, one in tensors.items()
        if "diffusion" in name
    }
    save_file(tensors, tmp_path / "model.safetensors")
    opened = TextToImage.from_pretrained(tmp_path / "model.safetensors", device="cpu", model_config=folder)
    written = load_file(write_file(opened, tmp_path / "new.safetensors"))
    assert written.keys() == {name for name in tensors if not name.startswith("model_ema.")}


def test_the_carried_tokenizer_is_that_of_clip() -> None:
    words, merges = clip_words()
    known = {"a</w>": 320, "photo</w>": 1125, "dog</w>": 1929, "cat</w>": 2368, "<|startoftext|>": 49406}
    assert {word: words[word] for word in known} == known
    assert len(words) == 49408
    assert len(merges.splitlines()) == 48895


@pytest.mark.parametrize("kind", [one for one in KINDS if one.carried], ids=lambda kind: str(kind.carried))
def test_carried_configurations_open(kind: Any, tmp_path: Path) -> None:
    """Their networks have the published numbers of weights, and a file of full size is understood;
    without memory."""
    starts = {part: starts[0] for part, starts in kind.parts.items() if part != "text_encoder_3"}
    found = Found(Path("x"), kind, starts, kind.prediction or "epsilon")
    folder = write_folder(found, tmp_path)
    index = read_index(folder)
    family = index.family
    networks: dict[str, Any] = {}
    for name in family.networks:
        class_ = index.classes[name]
        config = read_config(folder, name, "config.json", class_, family.rules[class_])
        networks[name] = build(class_, config, name)
    weights = {name: sum(p.numel() for p in one.parameters()) for name, one in networks.items()}
    published = {
        "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
        "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
        "sdxl": {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480,
                 "text_encoder_2": 694_659_840},
        "sd3": {"transformer": 2_028_328_000, "vae": 83_819_683, "text_encoder": 123_650_304,
                "text_encoder_2": 694_659_840},
    }  # fmt: skip
    assert weights == published[kind.carried]
    tensors = {name: one.to("meta") for name, one in original(networks, kind.carried).items()}
    for name, network in networks.items():
        part = converted(found, name, tensors, network)
        wanted = {key.removeprefix("text_model."): one for key, one in network.state_dict().items()}
        shapes = {key.removeprefix("text_model."): one.shape for key, one in part.items()}
        assert all(shapes[key] == one.shape for key, one in wanted.items() if "position_ids" not in key)
    scheduler = load_scheduler(folder, index.classes["scheduler"])
    assert kind.prediction == "flow" or scheduler.config.prediction_type == "epsilon"
    for name in family.tokenizers:
        ids = load_tokenizer(folder, part=name)("a photo of a dog").input_ids
        assert ids[1:-1] == [320, 1125, 539, 320, 1929]


def test_a_v_model_of_stable_diffusion_2_is_larger() -> None:
    kind = next(one for one in KINDS if one.carried == "sd2")
    side = [
        configurations(Found(Path("x"), kind, {}, said))["unet/config.json"]["sample_size"]
        for said in ("epsilon", "v_prediction")
    ]
    assert side == [64, 96]


def test_header_alone_is_read(tmp_path: Path) -> None:
    assert look(tmp_path / "model.ckpt") is None


def test_a_huge_empty_tensor_beside_the_weights_is_kept(
    folder: Path, model: TextToImage, tmp_path: Path
) -> None:
    file = write_single(model, tmp_path / "model.safetensors", "sd1")
    extra = "model.diffusion_model.extra.weight"
    save_file({**load_file(file), extra: torch.zeros(1 << 45, 0)}, file, {"format": "pt"})
    opened = TextToImage.from_pretrained(file, device="cpu", model_config=folder)
    written = write_file(opened, tmp_path / "new.safetensors")
    assert look(written) is not None
    assert load_file(written).keys() == load_file(file).keys()


def test_a_folder_named_as_a_checkpoint_is_none(model: TextToImage, tmp_path: Path) -> None:
    (tmp_path / "old.ckpt").mkdir()
    assert hub.locate(str(tmp_path)) == tmp_path
    file = write_single(model, tmp_path / "model.safetensors", "sd1")
    assert hub.locate(str(tmp_path)) == file


def test_a_path_that_is_too_long_is_one_sentence() -> None:
    name = "a" * 5000
    for check in (hub.check_name, lambda one: parse_loras([one]), lambda one: parse_embeddings([one])):
        with pytest.raises(UsageError, match="File name too long"):
            check(name)
