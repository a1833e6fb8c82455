"""`unlikeness measure` prints a table or JSON, and names what it could not match."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.autoencoders import tiny_files

from unlikeness.cli import main


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    pixels = np.random.default_rng(0).integers(20, 200, (16, 18, 3), dtype=np.uint8)
    for name, change in (("photos", 0), ("protected", 6)):
        (tmp_path / name).mkdir()
        for file in ("a[b].png", "b.png", f"only-{name}.png"):
            Image.fromarray((pixels + change).astype(np.uint8)).save(tmp_path / name / file)
    return str(tmp_path / "photos"), str(tmp_path / "protected")


@pytest.mark.parametrize("verb", [["measure"], ["measure", "visibility"]])
def test_table(verb: list[str], folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb, *folders]) == 0
    out, err = capsys.readouterr()
    assert "a[b].png" in out
    assert "largest L∞ 6.00/255" in out
    assert "only among the originals: only-photos.png" in err
    assert "only among the protected: only-protected.png" in err


def test_json(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", *folders, "--json", "--seed", "3"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["max_linf"] == 6
    assert report["ssim"]["seed"] == 3
    assert report["only_original"] == ["only-photos.png"]


def test_two_files(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", f"{folders[0]}/a[b].png", f"{folders[1]}/b.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"][0]["linf"] == 6


def test_a_pair_that_fails_makes_the_exit_status_1(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(folders[1], "b.png").write_bytes(b"not a picture")
    assert main(["measure", *folders]) == 1
    out, err = capsys.readouterr()
    assert "a[b].png" in out
    assert "b.png" in err


def test_pictures_over_the_bound_are_compared_when_it_is_raised(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", *folders, "--max-pixels", "287"]) == 1
    assert "raise max_pixels" in capsys.readouterr().err
    assert main(["measure", *folders, "--max-pixels", "288"]) == 0


def test_an_unknown_encoder_is_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)
    arguments = ["--subject", folder, "--generated", folder, "--class-images", folder, "--encoder", "toybix"]
    assert main(["measure", "similarity", *arguments]) == 2
    assert "did you mean toybox?" in capsys.readouterr().err


def test_pictures_that_would_be_compared_with_themselves_are_misuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in ("held", "drawn", "class"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    for other, option in (("held", "--subject"), ("class", "--class-images")):
        stray = tmp_path / "drawn" / f"stray-{other}.png"
        stray.write_bytes((tmp_path / other / "1.png").read_bytes())
        folders = {"--subject": "held", "--class-images": "class", "--generated": "drawn"}
        arguments = [word for flag, name in folders.items() for word in (flag, str(tmp_path / name))]
        assert main(["measure", "similarity", *arguments]) == 2
        said = capsys.readouterr().err
        assert f"1 of the pictures in {tmp_path / 'drawn'} are in {tmp_path / folders[option]} too" in said
        stray.unlink()


def test_names_are_shown_on_one_line_of_plain_text(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in folders:
        source = Path(folder, "b.png").read_bytes()
        Path(folder, "c\x1b[31m\nd.png").write_bytes(source)
    Path(folders[0], "e\x1b[0m.png").write_bytes(source)
    assert main(["measure", *folders]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "only among the originals: e [0m.png" in err


@pytest.fixture
def autoencoder(tmp_path: Path) -> str:
    """A tiny autoencoder in its author's format."""
    torch.manual_seed(0)
    return str(tiny_files.write(tmp_path / "tiny_encoder.safetensors", tiny_files.encoder_weights()))


def test_latents_table_and_sentence(
    folders: tuple[str, str], autoencoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    differ(folders)
    assert main(["measure", "latents", *folders, "--against", autoencoder, "--size", "64", "-q"]) == 0
    out, err = capsys.readouterr()
    for word in ("protected", "noise", "as it is", "JPEG 75", "JPEG 50", "half size"):
        assert word in out
    assert "2 pictures at 64 px" in out
    assert "tiny_encoder" in out
    assert "as far as another picture would; noise of the same strength" in " ".join(out.split())
    assert "only among the originals: only-photos.png" in err


def test_latents_json(folders: tuple[str, str], autoencoder: str, capsys: pytest.CaptureFixture[str]) -> None:
    differ(folders)
    options = ["--against", autoencoder, "--size", "64", "--json", "--quiet"]
    assert main(["measure", "latents", *folders, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    (one,) = report["autoencoders"]
    assert one["protected"]["as it is"]["n"] == 2
    assert len(report["pictures"]) == 2


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (["--size", "100"], 2, "multiple of 64"),
        (["--against", ","], 2, "autoencoder"),
        (["--against", "no/such_encoder.pth"], 2, "no/such_encoder.pth"),
        (["--most", "1"], 2, "2"),
    ],
)
def test_latents_says_what_is_wrong(
    change: list[str],
    status: int,
    words: str,
    folders: tuple[str, str],
    autoencoder: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*([] if "--against" in change else ["--against", autoencoder]), *change]
    assert main(["measure", "latents", *folders, *options, "-q"]) == status
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_latents_of_a_single_picture_says_that_others_are_needed(
    folders: tuple[str, str], autoencoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [f"{folder}/b.png" for folder in folders]
    assert main(["measure", "latents", *pair, "--against", autoencoder, "-q"]) == 2
    assert "single picture" in capsys.readouterr().err


def differ(folders: tuple[str, str]) -> None:
    """Other pixels in one of the two pairs."""
    for folder in folders:
        file = Path(folder, "b.png")
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
