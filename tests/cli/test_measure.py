"""`unlikeness measure` prints a table or JSON, and names what it could not match."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
