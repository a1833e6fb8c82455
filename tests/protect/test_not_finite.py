"""A protection without numbers: a model that fails ends the run, a picture that fails is skipped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.diffusion.test_finite import spoil
from tests.protect.folders import GOOD, lines, run
from tests.protect.test_tiles import write
from tests.tiny import pictures, tiny_model, write_tiny

from unlikeness import protect
from unlikeness.cli import main
from unlikeness.diffusion import Condition, TextToImage
from unlikeness.errors import NotFiniteError
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.files.manifest import NAME
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.methods.aspl import Aspl, AsplSettings
from unlikeness.protect.methods.noise import Noise
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.subjects import Subject


@pytest.fixture
def tiny(tmp_path: Path) -> TextToImage:
    return tiny_model(tmp_path)


@pytest.mark.parametrize(
    ("method", "part", "named"),
    [("advdm", "unet", "the denoiser"), ("photoguard", "vae", "the auto"), ("advdm", "vae", "the auto")],
)
def test_a_model_that_fails_ends_the_run_and_names_its_part(
    photos: Path, tmp_path: Path, tiny: TextToImage, method: str, part: str, named: str
) -> None:
    made = protect.create(method, tiny, {"steps": 3})
    spoil(tiny.parts[part], part="conv_out")
    spoil(tiny.parts[part], part="encoder.conv_in" if part == "vae" else "")
    with pytest.raises(NotFiniteError, match=f"^{named}"):
        run(photos, tmp_path / "out", made)
    assert not (tmp_path / "out" / "a.png").exists()
    if method == "advdm":
        with pytest.raises(NotFiniteError):
            made.perturb(pictures(1), [0])


def test_activations_that_overflow_in_half_precision_are_no_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny(tmp_path / "model")
    source = write(tmp_path / "a.png", 40, 40)
    predict = TextToImage.predict

    def overflowing(self: TextToImage, z_t: torch.Tensor, t: torch.Tensor, c: Condition) -> torch.Tensor:
        return predict(self, z_t, t, c) * (torch.nan if self.dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr(TextToImage, "predict", overflowing)
    command = ["protect", str(source), "-o", str(tmp_path / "out"), "--model", str(folder), "--steps", "2"]
    command += ["--device", "cpu", "-q", "--dtype"]
    capsys.readouterr()
    assert main([*command, "bfloat16"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("unlikeness: the denoiser gives values that are not finite")
    assert "in bfloat16; --dtype float32 may help" in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
    assert not (tmp_path / "out" / "a.png").exists()
    assert main([*command, "float32"]) == 0


@pytest.mark.parametrize("when", [0, 1])
def test_a_picture_whose_gradient_fails_in_any_step_is_skipped_and_the_others_go_on(
    photos: Path, tmp_path: Path, model: TextToImage, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    gradient = GradientProtection.gradient
    step = {"now": 0}

    def failing(self: Any, images: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        found = gradient(self, images, generators)
        if images.mean() < 0.3 and step["now"] % 2 == when:  # the dark picture
            found = found * torch.nan
        return found

    def told(self: Any, images: torch.Tensor, generators: Any) -> torch.Tensor:
        found = failing(self, images, generators)
        step["now"] += 1
        return found

    monkeypatch.setattr(GradientProtection, "gradient", told)
    dark = write(photos / "dark.png", 32, 32)
    from PIL import Image

    Image.new("RGB", (32, 32), (20, 20, 20)).save(dark)
    made = AdvDM(model, AdvDMSettings(steps=2, budget=4))
    outcome = run([photos / "a.png", dark, photos / "z.webp"], tmp_path / "out", made, batch_size=1)
    assert [entry.path for entry in outcome.protected] == ["a.png", "z.webp"]
    (skipped,) = outcome.skipped
    said = "dark.png: the protection answered with values that are not numbers; give another method"
    assert skipped.reason == said
    assert not (tmp_path / "out" / "dark.png").exists()


def test_a_network_that_fails_on_everything_ends_the_run(photos: Path, tmp_path: Path) -> None:
    rid = Rid(None, RidSettings())

    def overflown(images: Any, *_: object) -> Any:
        return images * float("nan")

    setattr(rid, "perturb_arrays", overflown)  # noqa: B010
    with pytest.raises(NotFiniteError, match=r"whatever the picture; .*: give other weights, or"):
        run(photos, tmp_path / "out", rid)
    assert not (tmp_path / "out" / "a.png").exists()


def test_any_protection_that_fails_on_everything_ends_the_run(
    photos: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noise, "perturb", lambda self, images, seeds, on_step=None: images / 0)
    with pytest.raises(NotFiniteError, match="not numbers"):
        run(photos, tmp_path / "out", noise)
    assert not [line for line in lines(tmp_path / "out") if line["path"] in GOOD]
    assert (tmp_path / "out" / NAME).exists()


def test_aspl_ends_where_the_surrogate_has_no_gradient(tiny: TextToImage, monkeypatch: Any) -> None:
    made = Aspl(tiny, AsplSettings(rounds=1, clean_steps=0, pgd_steps=1, prior_weight=0.0))
    monkeypatch.setattr(TextToImage, "predict", lambda self, z_t, t, c: z_t * torch.nan)
    with pytest.raises(NotFiniteError, match="the denoiser"):
        made.perturb_subject(Subject(pictures(2), "dog"), seed=0)
