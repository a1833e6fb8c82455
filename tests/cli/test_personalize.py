"""`personalize` and `generate` from end to end on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image
from tests.tiny import pictures, write_tiny

from unlikeness.cli import main
from unlikeness.gallery import to_pil

QUICK = [
    "--steps",
    "2",
    "--class-images",
    "2",
    "--set",
    "class_steps=2",
    "--learning-rate",
    "1e-3",
    "--quiet",
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(pictures(2, size=48)):
        to_pil(image).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize("method", ["dreambooth", "lora"])
def test_personalize_then_generate(
    method: str, model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tmp_path / "tuned"
    arguments = [
        "--model",
        str(model),
        "--images",
        str(photos),
        "--class-noun",
        "dog",
        "--output",
        str(tuned),
    ]
    assert main(["personalize", *arguments, "--method", method, *QUICK]) == 0
    out, err = capsys.readouterr()
    assert "a photo of sks dog" in out
    assert "broken.jpg" in err
    written = json.loads((tuned / "personalization.json").read_text())
    assert written["method"] == method
    assert written["settings"]["steps"] == 2
    assert written["settings"]["class_steps"] == 2
    assert written["pictures"] == 2
    assert len(written["pictures_sha256"]) == 64

    pipe = StableDiffusionPipeline.from_pretrained(tuned if method == "dreambooth" else model)
    if method == "lora":
        pipe.load_lora_weights(tuned)
    source = (
        ["--model", str(tuned)] if method == "dreambooth" else ["--model", str(model), "--lora", str(tuned)]
    )
    wanted = ["--prompt", "a photo of sks dog", "--count", "3", "--seed", "7", "--steps", "2", "--quiet"]
    assert main(["generate", *source, *wanted, "--output", str(tmp_path / "drawn")]) == 0
    drawn = tmp_path / "drawn"
    assert sorted(file.name for file in drawn.iterdir()) == [
        "0000.png", "0001.png", "0002.png", "generation.json", "grid.png",
    ]  # fmt: skip
    record = json.loads((drawn / "generation.json").read_text())
    assert [(p["file"], p["seed"]) for p in record["pictures"]] == [
        ("0000.png", 7), ("0001.png", 8), ("0002.png", 9),
    ]  # fmt: skip
    with Image.open(drawn / "0002.png") as image:
        assert image.size == (32, 32)
        last = np.asarray(image)
    with Image.open(drawn / "grid.png") as sheet:
        assert sheet.size == (66, 66)
        assert np.array_equal(np.asarray(sheet)[34:, :32], last)


def test_a_seed_draws_the_same_picture_again(model: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "3"), ("b", "4")):
        options = ["--count", "2", "--seed", seed, "--steps", "2", "-q", "--output", str(tmp_path / name)]
        assert main(["generate", "--model", str(model), "--prompt", "a dog", *options]) == 0
    with Image.open(tmp_path / "a" / "0001.png") as one, Image.open(tmp_path / "b" / "0000.png") as other:
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_an_identifier_that_pushes_the_noun_out_of_the_prompt_is_refused(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--images", str(photos), "--class-noun", "dog", "--identifier", "sks " * 20, "-q"]
    output = tmp_path / "new"
    assert main(["personalize", "--model", str(model), *arguments, "--output", str(output)]) == 2
    assert "tokens, and the model reads the first 16" in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


def test_misuse_is_one_line(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["personalize", "--model", str(model), "--images", str(photos), "--class-noun", "dog", "-q"]
    new = ["--output", str(tmp_path / "new")]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    wrong = {
        "did you mean lora": [*base, *new, "--method", "lorra"],
        "--rank is no setting": [*base, *new, "--method", "dreambooth", "--rank", "4"],
        "apdm is for personalize dreambooth alone": [*base, *new, "--method=lora", "--preset=apdm"],
        "must be NAME=VALUE": [*base, *new, "--set", "flip"],
        "steps is given twice": [*base, *new, "--steps", "2", "--set", "steps=3"],
        "is no preset": [*base, *new, "--preset", "large"],
        "would be in the way": [*base, *new, "--checkpoint", str(tmp_path / "new" / "state")],
        "is no folder; name another --output": [*base, "--output", str(photos / "0.png" / "new")],
        "is no folder; name another --checkpoint": [*base, *new, "--checkpoint", str(photos / "0.png" / "c")],
        "is a link": [*base, "--output", str(link)],
        "class_seed must be at most": [*base, *new, "--set", f"class_seed={2**64}"],
        "device 'xpu' is unknown": [*base, *new, "--device", "xpu"],
        "no UTF-8 text": ["generate", "--model", str(model), "--prompt", "a \udcff dog", *new],
        "are too many": ["generate", "--model", str(model), "--prompt", "x", "--steps", "1500", *new],
        "finite": ["generate", "--model", str(model), "--prompt", "x", "--guidance", "inf", *new],
        "never overwritten": [*base, "--output", str(photos)],
        "model_index.json": ["generate", "--model", str(photos), "--prompt", "x", *new],
        "is no LoRA file": ["generate", "--model", str(model), "--lora", str(photos), "--prompt", "x", *new],
    }
    for named, arguments in wrong.items():
        assert main(arguments) == 2, named
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert named in err
    assert not (tmp_path / "new").exists()


def test_a_small_model_is_trained_at_its_own_scale(model: Path, photos: Path, tmp_path: Path) -> None:
    base = ["personalize", "--model", str(model), "--images", str(photos), "--class-noun", "dog", *QUICK[:-3]]
    for scale, rate, batch in (("auto", 5e-4, 4), ("stable-diffusion", 5e-6, 1)):
        tuned = tmp_path / scale
        assert main([*base, "--preset", scale, "--output", str(tuned), "-q"]) == 0
        settings = json.loads((tuned / "personalization.json").read_text())["settings"]
        assert (settings["learning_rate"], settings["batch_size"]) == (rate, batch)
        assert (settings["steps"], settings["class_images"]) == (2, 2)
