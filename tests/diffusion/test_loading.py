"""What Stable Diffusion's folders look like in the wild, opened here and in plain diffusers."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tests.tiny import encoder_of, pictures, tiny_model, write_tiny
from transformers import CLIPTokenizer

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.families import Defaults
from unlikeness.diffusion.fingerprint import configuration, fingerprint
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.weights import Weights, choose_weights, needed_files

LAYOUTS: dict[str, dict[str, Any]] = {
    "single file": {},
    "sharded": {"sharded": True},
    "half precision variant": {"variant": "fp16"},
    "half precision variant, sharded": {"variant": "fp16", "sharded": True},
    "pickled": {"pickled": True},
    "safety checker": {"safety_checker": True, "scheduler": "ddpm"},
    "safety checker, pickled": {"safety_checker": True, "pickled": True},
    "tiny autoencoder, v-prediction": {"vae": "tiny", "prediction_type": "v_prediction"},
}


def answer(model: TextToImage | StableDiffusionPipeline) -> torch.Tensor:
    parts: Any = model.parts if isinstance(model, TextToImage) else model.components
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    c = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        f: torch.Tensor = parts["unet"](z, torch.tensor([3, 700]), encoder_hidden_states=c).sample
        decoded: torch.Tensor = parts["vae"].decode(z).sample
    return torch.cat([f.flatten(), decoded.flatten()])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opens_here_and_its_copy_opens_in_plain_diffusers(layout: str, tmp_path: Path) -> None:
    options = LAYOUTS[layout]
    folder = write_tiny(tmp_path / "model", **options)
    model = TextToImage.from_pretrained(folder, device="cpu")
    plain = StableDiffusionPipeline.from_pretrained(folder, variant=options.get("variant"))
    assert torch.allclose(answer(model), answer(plain.to(torch.float32)), atol=1e-5)
    assert model.resolution == 32
    assert model.dtype == torch.float32
    assert model.schedule.prediction_type == options.get("prediction_type", "epsilon")

    saved = model.save_pretrained(tmp_path / "saved")
    assert not [file for file in saved.rglob("*") if file.suffix in (".bin", ".ckpt", ".pt")]
    again = StableDiffusionPipeline.from_pretrained(saved)
    assert torch.equal(answer(TextToImage.from_pretrained(saved, device="cpu")), answer(model))
    assert torch.allclose(answer(again), answer(model), atol=1e-5)
    ids = torch.arange(16)[None]
    assert torch.allclose(again.text_encoder(ids)[0], encoder_of(model)(ids)[0], atol=1e-5)
    assert (again.safety_checker is not None) == options.get("safety_checker", False)
    assert (again.feature_extractor is not None) == options.get("safety_checker", False)
    assert type(again.scheduler) is type(model.scheduler)
    for file in saved.rglob("*.json"):
        assert str(tmp_path) not in file.read_text()
    keys = load_file(saved / "text_encoder" / "model.safetensors")
    assert all(key.startswith("text_model.") for key in keys)  # what transformers 4 and other tools read
    (saved / "tokenizer" / "tokenizer.json").unlink()
    words = ["a photo of sks dog", "It's 12 o'clock!"]
    assert (
        CLIPTokenizer.from_pretrained(saved / "tokenizer")(words)["input_ids"]
        == plain.tokenizer(words)["input_ids"]
    )
    assert again.scheduler.config.prediction_type == model.schedule.prediction_type


def test_the_safety_checker_is_never_read(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", safety_checker=True)
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"not weights")
    TextToImage.from_pretrained(folder, device="cpu")


def test_a_part_that_was_never_fetched_is_saved_as_absent(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", safety_checker=True)
    shutil.rmtree(folder / "safety_checker")
    saved = TextToImage.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / "saved")
    assert json.loads((saved / "model_index.json").read_text())["safety_checker"] == [None, None]
    assert StableDiffusionPipeline.from_pretrained(saved).safety_checker is None


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    folder = write_tiny(tmp_path / "model", pickled=True)
    for weights in ("unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"):
        kept = (folder / weights).read_bytes()
        (folder / weights).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(UnlikenessError, match=weights.split("/")[0]):
            TextToImage.from_pretrained(folder, device="cpu")
        torch.save({"weight": Bomb()}, folder / weights)
        with pytest.raises(UnlikenessError, match=weights.split("/")[0]):
            TextToImage.from_pretrained(folder, device="cpu")
        (folder / weights).write_bytes(kept)
    assert not (tmp_path / "ran").exists()


def test_safetensors_come_before_pickles_and_plain_before_half() -> None:
    names = [
        "config.json", "model.ckpt",
        "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin",
        "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.non_ema.safetensors",
    ]  # fmt: skip
    assert choose_weights(names) == Weights("safetensors", None, False)
    assert choose_weights(names, half=True) == Weights("safetensors", "fp16", False)
    assert choose_weights(names[:4]) == Weights("bin", None, False)
    assert choose_weights(names[:2]) is None
    assert needed_files(names) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert needed_files(names, half=True) == ["config.json", "diffusion_pytorch_model.fp16.safetensors"]
    shards = [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert choose_weights(shards) == Weights("safetensors", None, True)
    assert needed_files([*shards, "pytorch_model.bin", "modeling_mine.py"]) == sorted(shards)


def test_a_tiny_autoencoder_has_a_posterior_without_spread(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, vae="tiny")
    assert isinstance(model.autoencoder.network, AutoencoderTiny)
    posterior = model.encode(pictures(2))
    assert posterior.mean.shape == (2, 4, 8, 8)
    assert not posterior.std.any()
    assert torch.equal(posterior.sample(torch.Generator().manual_seed(0)), posterior.mean)


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no model_index\.json"):
        TextToImage.from_pretrained(tmp_path)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(part: str, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    shutil.rmtree(folder / part)
    with pytest.raises(UsageError, match=f"no {part}/ folder"):
        TextToImage.from_pretrained(folder, device="cpu")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UsageError, match="no weights in unet/"):
        TextToImage.from_pretrained(folder, device="cpu")


def test_damaged_weights_are_one_sentence(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        file = folder / f"{part}.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UnlikenessError) as caught:
            TextToImage.from_pretrained(folder, device="cpu")
        assert part.split("/")[0] in str(caught.value)
        assert "\n" not in str(caught.value)
        file.write_bytes(whole)


def test_weights_that_lack_tensors_are_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UnlikenessError, match=r"lacks 1 tensors, conv_in\.weight"):
        TextToImage.from_pretrained(folder, device="cpu")


def test_other_pipelines_and_custom_code_are_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxFillPipeline"}))
    with pytest.raises(UsageError, match="FluxFillPipeline"):
        TextToImage.from_pretrained(folder)
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["my_code", "Mine"]}))
    with pytest.raises(UsageError, match="never run"):
        TextToImage.from_pretrained(folder)


def test_saving_never_overwrites(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(UsageError, match="never overwritten"):
        model.save_pretrained(tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert (model.save_pretrained(tmp_path / "empty") / "model_index.json").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_saved_model_is_for_every_reader(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        saved = tiny_model(tmp_path).save_pretrained(tmp_path / "saved")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in saved.rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert {path.stat().st_mode & 0o777 for path in (saved, saved / "unet")} == {0o755}


def test_a_model_is_saved_alike_before_and_after_its_use(tmp_path: Path) -> None:
    def files(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    model = tiny_model(tmp_path)
    model.condition(["a photo of a dog"])  # in rows of one length
    before = files(model.save_pretrained(tmp_path / "before"))
    model.conditioner.tokenizer("a photo of a dog")  # as long as it is
    assert files(model.save_pretrained(tmp_path / "after")) == before


def test_saving_in_half_precision_leaves_the_model_alone(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    model.defaults = Defaults(guidance=5.0)
    before = answer(model)
    saved = model.save_pretrained(tmp_path / "half", dtype="float16")
    assert torch.equal(answer(model), before)
    again = TextToImage.from_pretrained(saved, device="cpu")
    assert again.defaults.guidance == 5.0
    assert torch.allclose(answer(again), before, atol=2e-2)
    size = (saved / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert size < 0.6 * 4 * sum(p.numel() for p in model.denoiser.parameters())


def test_a_copy_on_disk_is_the_same_model(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    model.defaults = Defaults(guidance=5.0)
    saved = model.save_pretrained(tmp_path / "saved")
    again = TextToImage.from_pretrained(saved, device="cpu")
    assert configuration(again) == configuration(model)
    assert str(tmp_path) not in configuration(again)
    assert fingerprint(again) == fingerprint(model)
    assert fingerprint(tiny_model(tmp_path, seed=1)) != fingerprint(model)
    with torch.no_grad():
        encoder_of(again).get_input_embeddings().weight.add_(0.1)
    assert fingerprint(again) != fingerprint(model)


def test_a_tokenizer_that_writes_its_own_files_is_let(tmp_path: Path) -> None:
    """transformers 4 has slow tokenizers, without a `backend_tokenizer`."""
    model = tiny_model(tmp_path)

    class Slow:
        def save_pretrained(self, folder: Path) -> None:
            shutil.copytree(model.source / "tokenizer", folder)  # type: ignore[operator]

    whole = model.conditioner.tokenizer
    model.conditioner.tokenizers = {"tokenizer": Slow()}
    saved = model.save_pretrained(tmp_path / "saved")
    again = CLIPTokenizer.from_pretrained(saved / "tokenizer")
    assert again("a dog")["input_ids"] == whole("a dog")["input_ids"]


def test_half_precision_files_run_in_a_plain_pipeline_that_names_no_dtype(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "half")
    assert {part.dtype for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae)} == {torch.float32}
    picture = pipeline("a dog", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (32, 32, 3)


def test_an_index_of_another_form_is_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    for wrong, said in (
        ({"vae": []}, "has no vae/ folder"),
        ({"unet": ["diffusers", 3]}, "has no unet/ folder"),
        ({"scheduler": ["diffusers", "logging"]}, "is a diffusers.logging, which is never loaded"),
        ({"scheduler": ["diffusers", "AutoencoderKL"]}, "the scheduler of model"),
        ({"../secret": ["diffusers", "AutoencoderKL"]}, "has a part '../secret', which is no name"),
    ):
        (folder / "model_index.json").write_text(json.dumps({**index, **wrong}))
        with pytest.raises(UnlikenessError, match=re.escape(said)):
            TextToImage.from_pretrained(folder, device="cpu")


def test_a_carried_file_that_holds_no_weights_is_one_sentence(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", safety_checker=True, pickled=True)
    (folder / "safety_checker" / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1")
    model = TextToImage.from_pretrained(folder, device="cpu")
    with pytest.raises(UnlikenessError, match=r"pytorch_model\.bin is no file of weights"):
        model.save_pretrained(tmp_path / "saved")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model"]
