"""Spoiled output: every figure, what is left out, and that each figure moves the right way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import write_clip
from torch import Tensor

from unlikeness.cli import main
from unlikeness.errors import UsageError
from unlikeness.measure.classifiers import open_clip
from unlikeness.measure.distribution import frechet_interval, kernel_distance, kernel_interval
from unlikeness.measure.encoders import load_encoder
from unlikeness.measure.naturalness import Naturalness, patch_statistics
from unlikeness.measure.spoiled import Figure, spoiled_output
from unlikeness.subjects import read_folder
from unlikeness.toybox.cast import class_pictures


def save(folder: Path, images: Tensor | list[Tensor]) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        pixels = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of renders of dogs: clean, kept, noisy and grey."""
    home = tmp_path_factory.mktemp("toys")
    renders = class_pictures("dog", 18, seed=3)
    noise = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    save(home / "clean", renders[:12])
    save(home / "kept", renders[12:])
    save(home / "noisy", renders[12:] + 24 / 255 * noise)
    save(home / "grey", [torch.full((3, 64, 64), 0.3 + i / 10) for i in range(4)])
    return home


def figures(folder: Path, *names: str, **further: object) -> dict[str, Figure]:
    found = spoiled_output(folder, names=names or ("toybox",), **further).figures  # type: ignore[arg-type]
    return {one.name: one for one in found}


def test_spoiled_pictures_of_the_toybox_are_told_from_clean_ones(toys: Path) -> None:
    kept, noisy, grey = (
        figures(toys / word, clean=toys / "clean", class_noun="dog") for word in ("kept", "noisy", "grey")
    )
    assert list(kept) == ["unreadable", "FID", "KID", "NIQE"]
    assert kept["unreadable"].value == kept["unreadable"].clean == 0
    assert grey["unreadable"].value >= 0.5
    assert 0 < grey["unreadable"].low < 1
    assert kept["NIQE"].value < 2 < noisy["NIQE"].low
    for name in ("FID", "KID"):
        assert grey[name].value > kept[name].high
    assert kept["KID"].low < kept["KID"].value < kept["KID"].high
    for one in (*kept.values(), *noisy.values(), *grey.values()):
        assert one.low <= one.value <= one.high
        assert "{}" not in one.sentence


def test_the_command_prints_figures_and_what_is_left_out(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["measure", "spoiled", str(toys / "noisy")]
    assert main([*words, "--clean", str(toys / "clean"), "--class-noun", "dog"]) == 0
    said = capsys.readouterr().out
    assert "NIQE: Local statistics are" in said
    assert "without FDFR and ISM: they need an encoder of faces; give --encoder dlib" in said
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"] == []
    assert "--class-noun" in found["left_out"]["unreadable"]
    assert "--clean" in found["left_out"]["FID, KID and NIQE"]
    shutil.copy(toys / "noisy" / "00.png", toys / "grey" / "same.png")
    assert main([*words, "--clean", str(toys / "grey")]) == 2
    assert "bit for bit" in capsys.readouterr().err
    assert main([*words, "--class-noun", "axolotl"]) == 2
    assert "only person, dog" in capsys.readouterr().err


def test_clips_figures_are_those_of_transformers(toys: Path, tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    found = figures(
        toys / "kept", str(folder), clean=toys / "clean", class_noun="dog", prompt="a photo of a dog"
    )
    assert list(found) == ["CLIP-IQA", "CLIP-T", "unreadable", "FID", "KID", "NIQE"]
    clip = open_clip(folder)
    model, tokenizer = clip.model, clip.tokenizer
    encoder = load_encoder(str(folder))
    views = [encoder.view(torch.from_numpy(one).permute(2, 0, 1)) for one in read_folder(toys / "kept")]
    pixels = torch.stack([view for view in views if view is not None])
    words = tokenizer(
        ["Good photo.", "Bad photo.", "a photo of a dog"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        out = model(**words, pixel_values=pixels)
    good = out.logits_per_image[:, :2].softmax(1)[:, 0].mean()
    cosine = (out.image_embeds @ out.text_embeds.T)[:, 2].mean()
    assert found["CLIP-IQA"].value == pytest.approx(float(good), abs=1e-5)
    assert found["CLIP-T"].value == pytest.approx(float(cosine), abs=1e-5)


def test_half_a_clip_still_gives_distances(toys: Path, tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    for file in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / file).unlink(missing_ok=True)
    report = spoiled_output(toys / "kept", names=(str(folder),), clean=toys / "clean", prompt="a dog")
    assert [one.name for one in report.figures] == ["FID", "KID", "NIQE"]
    assert "tokenizer" in report.left_out["CLIP-IQA"]


def test_faces_that_are_lost_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    data = pytest.importorskip("skimage.data")
    face = torch.from_numpy(data.astronaut()[:300, 100:350].copy()).permute(2, 0, 1).float() / 255
    own = save(tmp_path / "own", [face, face.flip(2)])
    drawn = save(tmp_path / "drawn", [face * 0.9, face[:, 200:], torch.rand(3, 50, 50)])
    found = figures(drawn, "dlib", subject=own)
    assert found["FDFR"].value == pytest.approx(2 / 3)
    assert found["ISM"].n == 1
    assert found["ISM"].value > 0.95
    none = save(tmp_path / "none", [torch.rand(3, 50, 50)])
    report = spoiled_output(none, names=("dlib",), subject=none)
    assert "no face is found in the pictures of" in report.left_out["ISM"]


def test_the_statistics_are_those_of_known_distributions() -> None:
    """White noise has a shape of 2 or more, and below 1.2 in products of neighbours."""
    generator = torch.Generator().manual_seed(0)
    noise = (0.5 + 0.1 * torch.randn(1, 384, 384, generator=generator)).clamp(0, 1).expand(3, -1, -1)
    found = patch_statistics(noise)
    assert found is not None
    assert found.shape == (16, 36)
    assert 2 < found[:, 0].mean() < 4  # dividing by the deviation of 7 x 7 px flattens it
    assert 0.5 < found[:, 2].mean() < 1.2
    assert patch_statistics(torch.rand(3, 40, 400)) is None
    flat = patch_statistics(torch.full((3, 64, 64), 0.5))
    assert flat is not None
    assert np.isfinite(flat).all()
    with pytest.raises(UsageError, match="all have the same"):
        Naturalness([flat] * 8)


def test_intervals_of_distances_hold_the_value_and_widen_with_fewer_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(80, 5, generator=generator) + shift for shift in (0, 0.7))
    for interval in (frechet_interval, kernel_interval):
        many, few = interval(x, y, seed=0), interval(x[:8], y[:8], seed=0)
        assert 0 < many.low < many.value < many.high
        assert few.high - few.low > many.high - many.low
    assert kernel_interval(x, y, seed=0).value == kernel_distance(x, y)
