"""Subjects: their pictures as an attacker's script would load them, and their prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.gallery import save_generated
from unlikeness.subjects import Subject, load_folder, with_article


def write(path: Path, width: int, height: int, *, orientation: int | None = None, red_from: int = 0) -> None:
    """Blue, red from column `red_from` on."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = 255
    pixels[:, red_from:] = (255, 0, 0)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def test_pictures_are_upright_central_squares(tmp_path: Path) -> None:
    write(tmp_path / "wide.png", 80, 40, red_from=40)
    write(tmp_path / "turned.png", 40, 40, red_from=20, orientation=6)
    images = load_folder(tmp_path, size=40)
    assert images.shape == (2, 3, 40, 40)
    assert images.dtype == torch.float32
    turned, wide = images
    assert torch.equal(wide[0, :, 20:], torch.ones(40, 20))
    assert torch.equal(wide[2, :, :20], torch.ones(40, 20))
    # Orientation 6 is shown turned a quarter clockwise: what was on the right comes to the bottom.
    assert turned[0, 30:].mean() == 1
    assert turned[0, :10].mean() == 0


def test_resampling_keeps_the_mean_and_the_range(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    image = load_folder(tmp_path, size=32)[0]
    assert image.shape == (3, 32, 32)
    assert 0 <= image.min() <= image.max() <= 1
    assert torch.allclose(image.mean((1, 2)), torch.from_numpy(pixels.mean((0, 1)) / 255).float(), atol=5e-3)


def test_one_bad_file_is_reported_and_left_out(tmp_path: Path) -> None:
    write(tmp_path / "good.png", 32, 32)
    (tmp_path / "bad.jpg").write_bytes(b"no picture at all")
    told: list[str] = []
    subject = Subject.from_folder(tmp_path, "dog", size=32, report=told.append)
    assert len(subject.images) == 1
    assert len(told) == 1
    assert "bad.jpg" in told[0]
    (tmp_path / "good.png").unlink()
    with pytest.raises(UnlikenessError, match="no picture that can be read"):
        load_folder(tmp_path, size=32, report=told.append)
    with pytest.raises(UsageError, match="does not exist"):
        load_folder(tmp_path / "nowhere", size=32)


def test_pictures_of_kinds_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    for name in ("a.dng", "b.psd", "c.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"of no concern")
    told: list[str] = []
    assert len(load_folder(tmp_path, size=32, report=told.append)) == 1
    assert told == [
        f"{tmp_path}: 2 files cannot be read: 1 RAW (DNG), 1 PSD; export them as JPEG, PNG or TIFF first"
    ]


def test_the_grid_beside_generated_pictures_is_none_of_them(tmp_path: Path) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save_generated(images, tmp_path / "drawn", prompts=["a dog"] * 3, seeds=[0, 1, 2], settings={})
    assert (tmp_path / "drawn" / "grid.png").is_file()
    found = load_folder(tmp_path / "drawn", size=32)
    assert torch.allclose(found, images, atol=1 / 255)
    write(tmp_path / "grid.png", 32, 32)  # of no generation: a picture like any other
    assert len(load_folder(tmp_path, size=32)) == 4


def test_pictures_of_several_sizes_need_one(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 32, 32)
    write(tmp_path / "b.png", 48, 48)
    with pytest.raises(UsageError, match="differ in size"):
        load_folder(tmp_path, size=None)


def test_prompts_have_the_right_words() -> None:
    subject = Subject(torch.zeros(1, 3, 8, 8), "dog")
    assert subject.instance_prompt == "a photo of sks dog"
    assert subject.class_prompt == "a photo of a dog"
    assert subject.prompt("{} in the snow") == "sks dog in the snow"
    assert subject.prompt("a painting of {}", of_class=True) == "a painting of a dog"
    with pytest.raises(UsageError, match="must contain"):
        subject.prompt("a photo")
    with pytest.raises(UsageError, match="class noun"):
        Subject(torch.zeros(1, 3, 8, 8), " ")
    with pytest.raises(UsageError, match="images"):
        Subject(torch.zeros(0, 3, 8, 8), "dog")


def test_words_are_plain_text_without_blanks_around_them() -> None:
    images = torch.zeros(1, 3, 8, 8)
    subject = Subject(images, " guide dog ", "sks\n")
    assert (subject.class_noun, subject.identifier) == ("guide dog", "sks")
    assert subject.instance_prompt == "a photo of sks guide dog"
    with pytest.raises(UsageError, match=r"the class noun 'd\\udcf6g' is no UTF-8 text"):
        Subject(images, "d\udcf6g")
    with pytest.raises(UsageError, match=r"the identifier .* is no UTF-8 text"):
        Subject(images, "dog", "\ud800")


@pytest.mark.parametrize(
    "phrase",
    [
        "a person",
        "an apple",
        "an owl",
        "a unicorn",
        "an umbrella",
        "an hour glass",
        "a house",
        "a European",
        "a one-eyed cat",
    ],
)
def test_articles_go_by_sound(phrase: str) -> None:
    assert with_article(phrase.split(" ", 1)[1]) == phrase


def test_the_digest_is_of_the_pixels() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    digest = Subject(images, "dog").digest
    assert len(digest) == 64
    assert Subject(images.clone(), "cat", "zwx").digest == digest
    changed = images.clone()
    changed[0, 0, 0, 0] = 1 - changed[0, 0, 0, 0]
    assert Subject(changed, "dog").digest != digest
    assert Subject(images[:1], "dog").digest != digest
