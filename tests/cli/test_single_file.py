"""Single files and LoRA files, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.original import flux_transformer, write_single
from tests.tiny import pictures, write_tiny
from tests.tiny_flow import write_flux

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.lora import add_lora
from unlikeness.diffusion.lora_writing import save_lora
from unlikeness.gallery import to_pil


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def file(config: str, tmp_path: Path) -> Path:
    model = TextToImage.from_pretrained(config, device="cpu")
    return write_single(model, tmp_path / "tiny.safetensors", "sd1", dtype=torch.float16)


def test_pictures_from_a_file_and_a_lora(
    config: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = TextToImage.from_pretrained(file, device="cpu", model_config=config)
    add_lora(tuned, rank=2)
    lora = save_lora(tuned, tmp_path / "lora", form="kohya")
    out = tmp_path / "out"
    command = ["generate", "--model", str(file), "--model-config", config, "--prompt", "a dog"]
    command += ["--steps", "1", "--count", "1", "--device", "cpu", "--output"]
    assert main([*command, str(out), "--lora", f"{lora}:0.5", "--lora", str(tmp_path / "lora")]) == 0
    assert "is a single file of Stable Diffusion 1" in capsys.readouterr().err
    used = json.loads((out / "generation.json").read_text())["lora"]
    assert [(one["name"], one["strength"]) for one in used] == [(lora.name, 0.5), ("lora", 1.0)]
    assert main([*command, str(tmp_path / "new"), "--lora", str(tmp_path / "none.safetensors")]) == 2
    assert "--lora" in capsys.readouterr().err


def test_the_transformer_of_a_flux_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = write_flux(tmp_path / "rest")
    model = TextToImage.from_pretrained(rest, device="cpu")
    file, photos, out = tmp_path / "flux1-dev.safetensors", tmp_path / "rex", tmp_path / "out"
    save_file(flux_transformer(model.denoiser), file)
    photos.mkdir()
    for i, image in enumerate(pictures(2)):
        to_pil(image).save(photos / f"{i}.png")
    given = ["--images", str(photos), "--class-noun", "dog", "--model", str(file), "--output", str(out)]
    tune = ["personalize", *given, "--method", "lora", "--dry-run"]
    assert main(tune) == 2
    assert "is a FLUX.1 without vae, text_encoder and text_encoder_2; give" in capsys.readouterr().err
    tune += ["--model-config", str(rest)]
    assert main(tune) == 0
    assert "memory held" in capsys.readouterr().out
    command = [
        "immunize", *given, "--method", "apdm", "--outer-steps", "1", "--inner-steps", "1", "-q",
        "--learning-rate", "1e-2", "--set", "class-images=2", "--set", "class_steps=1", "--device", "cpu",
        "--preset", "stable-diffusion", "--single-file", "--model-config", str(rest),
    ]  # fmt: skip
    assert main(command) == 0
    assert "it lacks vae, text_encoder and text_encoder_2, which" in capsys.readouterr().err
    assert {one.name for one in out.iterdir()} == {file.name, "immunization.json", "README.md"}
    before, after = load_file(file), load_file(out / file.name)
    assert {name: one.shape for name, one in before.items()} == {n: one.shape for n, one in after.items()}
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_an_immunized_file_keeps_its_layout(
    config: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "rex", tmp_path / "out"
    photos.mkdir()
    for i, image in enumerate(pictures(2)):
        to_pil(image).save(photos / f"{i}.png")
    command = [
        "immunize", "--images", str(photos), "--class-noun", "dog", "--method", "apdm", "--outer-steps", "1",
        "--inner-steps", "1", "--learning-rate", "1e-2", "--set", "class-images=2", "--set", "class_steps=1",
        "--device", "cpu", "-q", "--preset", "stable-diffusion", "--single-file", "--output", str(out),
    ]  # fmt: skip
    single = ["--model", str(file), "--model-config", config]
    assert main([*command, *single]) == 0
    assert {one.name for one in out.iterdir()} == {
        "tiny.safetensors", "immunization.json", "unlikeness.json", "README.md",
    }  # fmt: skip
    before, after = load_file(file), load_file(out / "tiny.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.diffusion_model.") for name in changed)
    assert all(before[name].dtype == after[name].dtype for name in before)
    again = TextToImage.from_pretrained(out, device="cpu", model_config=config)
    assert again.source == out
    capsys.readouterr()
    for further, said in (
        (["--model", config], "--single-file needs a single file"),
        ([*single, "--dtype", "float16"], "keeps the precision of the file"),
    ):
        assert main([*command[:-1], str(tmp_path / "other"), *further]) == 2
        assert said in capsys.readouterr().err
