"""`unlikeness toybox`: folders of pictures to try things on, and the recipes from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import SafetensorError

from unlikeness.cli import main


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_render_writes_one_unseen_subject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["toybox", "render", "--class-noun", "dog", "--seed", "3"]
    held, of_class = str(tmp_path / "held"), str(tmp_path / "class")
    further = ["--held-out", held, "--class-images", of_class, "--others", "4"]
    assert main([*base, "--count", "3", "--output", str(tmp_path / "dog"), *further]) == 0
    assert "3 pictures" in capsys.readouterr().out
    assert files(tmp_path / "dog") == ["0000.png", "0001.png", "0002.png"]
    assert len(files(tmp_path / "held")) == len(files(tmp_path / "class")) == 4
    with Image.open(tmp_path / "dog" / "0000.png") as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")
        first = np.asarray(image)
    assert main([*base, "--count", "1", "--output", str(tmp_path / "again")]) == 0
    with Image.open(tmp_path / "again" / "0000.png") as image:
        assert np.array_equal(np.asarray(image), first)


def test_render_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    new, full = str(tmp_path / "new"), str(tmp_path / "full")
    wrong = {
        "backpack": ["--class-noun", "dgo", "--output", new],
        "never overwritten": ["--class-noun", "dog", "--output", full],
        "different folders": ["--class-noun", "dog", "--output", new, "--held-out", new],
        "none in another": ["--class-noun", "dog", "--output", new, "--held-out", f"{new}/held"],
        "learn from pictures": ["--class-noun", "dog", "--output", f"{new}/dog", "--class-images", new],
    }
    for named, arguments in wrong.items():
        assert main(["toybox", "render", *arguments]) == 2, named
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert named in err
    assert not (tmp_path / "new").exists()
    assert files(tmp_path / "full") == ["mine.txt"]


def test_train_refuses_wrong_settings_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.json").write_text("{}")
    (project / "thesis.txt").write_text("years")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (mixed / "thesis.txt").write_text("years")
    wide = tmp_path / "wide"
    AutoencoderKL(latent_channels=4, norm_num_groups=4, block_out_channels=(8,)).save_pretrained(wide)
    wrong = {
        "is no setting of VaeRecipe": ["vae", "--set", "stepz=3"],
        "must be NAME=VALUE": ["vae", "--set", "steps"],
        "steps must be at least 1": ["vae", "--steps", "0"],
        "seed must be at least 0": ["vae", "--seed", "-1"],
        "seed must be at most": ["model", "--seed", str(2**63)],
        "no earlier result": ["vae", "--output", str(other), "--overwrite"],
        "--overwrite": ["vae", "--output", str(made)],
        "holds no autoencoder": ["model", "--output", str(tmp_path / "model"), "--vae", str(other)],
        "latents of 4 channels": ["model", "--output", str(tmp_path / "model"), "--vae", str(wide)],
        "crop_size must be a multiple of 4 px": ["vae", "--set", "crop_size=30"],
        "average must be at most": ["model", "--set", "average=1"],
        "project exists and is no earlier result": ["vae", "--output", str(project), "--overwrite"],
        "mixed exists and is no earlier result": ["vae", "--output", str(mixed), "--overwrite"],
        "is where the checkpoint will be": [
            "identity",
            "--output",
            str(work / "identity.checkpoint.safetensors"),
        ],
        "'vea'": ["vea"],
    }
    for named, arguments in wrong.items():
        assert main(["toybox", "train", *arguments, "--work", str(work)]) == 2, named
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert named in err
    assert not work.exists()
    assert files(other) == ["letter.txt"]


def test_train_writes_an_autoencoder_that_diffusers_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusers import AutoencoderKL

    few = ["--set", "pictures=8", "--set", "crops=2", "--set", "kl_weight=1e-3", "--device", "cpu", "-q"]
    output = tmp_path / "vae"
    train = ["toybox", "train", "vae", *few, "--work", str(tmp_path / "work"), "--output", str(output)]
    assert main([*train, "--steps", "2"]) == 0
    vae = AutoencoderKL.from_pretrained(output)
    modes = {file.stat().st_mode for file in output.iterdir()}
    assert len(modes) == 1, "the weights are as readable as their configuration"
    assert vae.config.scaling_factor > 0
    assert (tmp_path / "work" / "vae.safetensors").exists()
    assert main([*train, "--steps", "2"]) == 2
    assert main([*train, "--steps", "2", "--overwrite"]) == 0

    def full(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(AutoencoderKL, "save_pretrained", full)
    capsys.readouterr()
    assert main([*train, "--steps", "2", "--overwrite"]) == 1
    err = capsys.readouterr().err
    assert f"{output} cannot be written" in err
    assert err.count("\n") == 1
    assert (output / "config.json").exists()
    assert files(tmp_path) == ["vae", "work"]


def test_the_checkpoint_of_a_model_is_of_one_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlikeness.toybox.recipes import model
    from unlikeness.toybox.recipes.settings import ModelRecipe
    from unlikeness.toybox.recipes.vae import new_vae

    asked: list[dict[str, Any]] = []

    def stopped(*args: Any, settings: dict[str, Any], **kwargs: Any) -> None:
        asked.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "train", stopped)
    monkeypatch.setattr(model, "corpus", lambda: ["a photo of a dog on the beach"])
    recipe = ModelRecipe(pictures=2)
    for seed, name in ((0, "first"), (0, "same"), (1, "other")):
        torch.manual_seed(seed)
        new_vae().save_pretrained(tmp_path / name)
        with pytest.raises(KeyboardInterrupt):
            model.train_model(recipe, tmp_path / "model", work=tmp_path / "work", vae=tmp_path / name)
    first, same, other = asked
    assert first == same
    assert first != other
