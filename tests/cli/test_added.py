"""`--lora` and `--embedding` in every command that opens a model, on a tiny one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny import encoder_of, pictures, write_tiny
from tests.verify.test_certificate import about
from tests.verify.test_run import outcome, verdict

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.gallery import to_pil
from unlikeness.verify import run as verify_run

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
FEW = ["--set", "class-images=2", "--set", "class_steps=1", "--device", "cpu", "-q", "--preset",
       "stable-diffusion"]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a LoRA, a word, a LoRA for another family, and two photographs."""
    folder = tmp_path_factory.mktemp("home")
    write_tiny(folder / "tiny")
    ones = {"down": torch.ones(1, 32), "up": torch.ones(32, 1)}
    save_file({f"unet.{LAYER}.lora.{end}.weight": x for end, x in ones.items()}, folder / "a.safetensors")
    save_file({"rexy": torch.ones(32)}, folder / "rexy.safetensors")
    save_file({"lora_te2_x.lora_down.weight": torch.ones(1, 8)}, folder / "xl.safetensors")
    (folder / "photos").mkdir()
    for i, image in enumerate(pictures(2)):
        to_pil(image).save(folder / "photos" / f"{i}.png")
    return folder


def added(home: Path) -> list[str]:
    return ["--lora", f"{home / 'a.safetensors'}:0.5", "--embedding", str(home / "rexy.safetensors")]


def check_record(found: dict[str, Any], home: Path) -> None:
    sums = [hashlib.sha256((home / f"{n}.safetensors").read_bytes()).hexdigest() for n in ("a", "rexy")]
    assert found["lora"] == [{"name": "a.safetensors", "strength": 0.5, "sha256": sums[0]}]
    assert found["embeddings"] == [{"name": "rexy.safetensors", "word": "", "sha256": sums[1]}]


def check_model(model: TextToImage, home: Path, *, whole: bool = True) -> None:
    """Both are in it, or (whole = False) neither is."""
    plain = TextToImage.from_pretrained(home / "tiny", device="cpu")
    for name, before in plain.denoiser.named_parameters():
        after = model.denoiser.get_parameter(name)
        assert torch.allclose(after, before + 0.5 * (whole and name == f"{LAYER}.weight"), atol=1e-5), name
    number = model.conditioner.vocabulary.get("rexy")
    assert (number is not None) == whole
    if number is not None:
        assert encoder_of(model).get_input_embeddings().weight[number].eq(1).all()


def test_personalize(home: Path, tmp_path: Path) -> None:
    command = ["personalize", "--model", str(home / "tiny"), "--images", str(home / "photos"), *added(home)]
    command += ["--class-noun", "dog", "--steps", "1", "--learning-rate", "0", *FEW, "--output"]
    assert main([*command, str(tmp_path / "tuned")]) == 0
    check_record(json.loads((tmp_path / "tuned" / "personalization.json").read_text()), home)
    check_model(TextToImage.from_pretrained(tmp_path / "tuned", device="cpu"), home)


def test_immunize(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["immunize", "--model", str(home / "tiny"), "--images", str(home / "photos"), *added(home)]
    command += ["--class-noun", "dog", "--method", "apdm", "--outer-steps", "1", "--inner-steps", "1",
                "--learning-rate", "1e-9", "--attack-learning-rate", "1e-9", *FEW, "--output"]  # fmt: skip
    out = tmp_path / "released"
    assert main([*command, str(out)]) == 0
    check_record(json.loads((out / "immunization.json").read_text()), home)
    assert "part of it: a.safetensors, rexy.safetensors." in (out / "README.md").read_text()
    check_model(TextToImage.from_pretrained(out, device="cpu"), home)
    capsys.readouterr()
    assert main([*command, str(tmp_path / "one"), "--single-file"]) == 2
    assert "--single-file needs a single file" in capsys.readouterr().err


def test_protect(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["protect", str(home / "photos" / "0.png"), "-o", str(tmp_path), "--device", "cpu", "-q"]
    with_model = [*command, "--model", str(home / "tiny"), "--steps", "1"]
    for options in ([], added(home)):  # another model: the picture is done again
        assert main([*with_model, *options]) == 0
        assert capsys.readouterr().out.startswith("1 protected")
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    before, after = (json.loads(line) for line in lines)
    assert "lora" not in before["recipe"]
    check_record(after["recipe"], home)
    assert after["against"]["models"] == ["tiny + a.safetensors + rexy.safetensors"]
    assert after["recipe"]["fingerprint"] != before["recipe"]["fingerprint"]
    assert main([*command, "--lora", str(home / "a.safetensors")]) == 2
    assert "--lora is added to a model" in capsys.readouterr().err
    assert main([*with_model, "--lora", str(home / "xl.safetensors")]) == 1
    said = capsys.readouterr().err
    assert "was made for Stable Diffusion XL, and the model is Stable Diffusion;" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("inside", [False, True])
def test_verify(inside: bool, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the record says to be in the model is added to the original alone."""
    model, seen = tmp_path / "model", dict[str, Any]()
    write_tiny(model)
    record: dict[str, Any] = {"method": "apdm", "earlier": []}
    if inside:
        names = ("a", "rexy")
        sums = [hashlib.sha256((home / f"{name}.safetensors").read_bytes()).hexdigest() for name in names]
        record["earlier"] = [{"lora": [{"sha256": sums[0]}], "embeddings": [{"sha256": sums[1]}, 3]}]
    (model / "immunization.json").write_text(json.dumps(record))

    def spy(released: Any, subject: Any, *args: Any, **how: Any) -> Any:
        seen.update(model=released, original=how["original"])
        return replace(verdict(outcome("paper", 0.1, 0.2)), about=about("mug"))

    monkeypatch.setattr(verify_run, "verify_subject", spy)
    command = ["verify", str(model), "--original", str(home / "tiny"), "--images", str(home / "photos"),
               "--class-noun", "mug", "--device", "cpu", "-q", *added(home), "--output"]  # fmt: skip
    assert main([*command, str(tmp_path / "certificate")]) == 0
    check_model(seen["model"], home, whole=not inside)
    check_model(seen["original"], home)
    check_record(json.loads((tmp_path / "certificate" / "certificate.json").read_text())["about"], home)
    assert main([*command, str(tmp_path / "signed"), "--sign"]) == (0 if inside else 2)
