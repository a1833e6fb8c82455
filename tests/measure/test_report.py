"""Two folders are compared by name, nothing is passed over in silence, and one bad file stops nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unlikeness.errors import PictureError, UsageError
from unlikeness.measure import compare, compare_pictures, report, visibility
from unlikeness.measure.report import to_json


def write(path: Path, seed: int, change: int = 0, size: tuple[int, int] = (24, 20)) -> Path:
    """A smooth picture of the seed's own, every channel changed by plus or minus `change` levels."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 200, (4, 4, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(np.int64)
    signs = np.random.default_rng(seed + 1000).choice([-1, 1], pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels + change * signs).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Originals and protected: two pairs, one of them in a subfolder, one unmatched picture on each side."""
    original, protected = tmp_path / "photos", tmp_path / "protected"
    for name, seed in (("a.png", 1), ("trip/b.png", 2)):
        write(original / name, seed)
        write(protected / name, seed, change=8)
    write(original / "left.png", 3)
    write(protected / "trip" / "right.png", 4)
    return original, protected


def test_two_files(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.png", 1), write(tmp_path / "b.png", 1, change=4)
    figures = compare_pictures(a, b)
    assert figures.linf == 4
    # Every pixel is off by exactly 4/255.
    assert figures.psnr == pytest.approx(20 * np.log10(255 / 4), abs=1e-3)
    assert figures.ssim is not None
    assert 0.5 < figures.ssim < 1
    assert (figures.bytes_before, figures.bytes_after) == (a.stat().st_size, b.stat().st_size)
    assert figures.growth == pytest.approx(b.stat().st_size / a.stat().st_size - 1)


def test_identical_and_tiny_pictures_have_no_psnr_or_ssim(tmp_path: Path) -> None:
    a = write(tmp_path / "a.png", 1, size=(8, 30))
    figures = compare_pictures(a, a)
    assert figures.linf == 0
    assert figures.psnr is None
    assert figures.ssim is None
    json.loads(to_json(figures))


def test_folders_match_by_relative_name_and_name_the_rest(folders: tuple[Path, Path]) -> None:
    found = compare(*folders)
    assert [p.name for p in found.pictures] == ["a.png", "trip/b.png"]
    assert found.only_original == ("left.png",)
    assert found.only_protected == ("trip/right.png",)
    assert found.failed == ()
    assert found.max_linf == 8
    assert found.psnr is not None
    assert found.psnr.n == 2


def test_pictures_of_kinds_that_cannot_be_protected_are_named_too(folders: tuple[Path, Path]) -> None:
    for name in ("IMG.CR2", "trip/layers.psd", "clip.mov", "notes.txt"):
        (folders[0] / name).write_bytes(b"of no concern")
    result = compare(*folders)
    assert result.only_original == ("IMG.CR2", "left.png", "trip/layers.psd")
    assert result.only_protected == ("trip/right.png",)


def test_a_folder_protected_into_itself_is_not_compared_with_its_output(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    write(tmp_path / "protected" / "a.png", 1, change=8)
    found = compare(tmp_path, tmp_path / "protected")
    assert [p.name for p in found.pictures] == ["a.png"]
    assert found.only_original == ()


def test_a_bad_pair_is_one_line_and_the_rest_goes_on(folders: tuple[Path, Path]) -> None:
    original, protected = folders
    (protected / "a.png").write_bytes((protected / "a.png").read_bytes()[:60])
    write(protected / "left.png", 3, size=(24, 21))
    found = compare(original, protected)
    assert [p.name for p in found.pictures] == ["trip/b.png"]
    assert len(found.failed) == 2
    assert "a.png" in found.failed[0]
    assert "24 × 21 px" in found.failed[1]
    assert all("\n" not in line for line in found.failed)


def test_a_pair_too_large_for_memory_is_one_line_and_the_rest_goes_on(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
        monkeypatch.setattr(report, "picture_psnr", visibility.picture_psnr)
        raise MemoryError

    monkeypatch.setattr(report, "picture_psnr", full)
    found = compare(*folders)
    assert [p.name for p in found.pictures] == ["trip/b.png"]
    (line,) = found.failed
    assert "a.png" in line
    assert "do not fit in memory" in line


def test_the_report_is_reproducible_json(folders: tuple[Path, Path]) -> None:
    assert to_json(compare(*folders, seed=5)) == to_json(compare(*folders, seed=5))
    read = json.loads(to_json(compare(*folders, seed=5)))
    assert read["psnr"]["seed"] == 5
    assert read["pictures"][0]["linf"] == 8


def test_what_cannot_be_compared_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    original, protected = folders
    with pytest.raises(UsageError, match="no such file or folder"):
        compare(original, tmp_path / "absent")
    with pytest.raises(UsageError, match="two files or two folders"):
        compare(original, protected / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="same name in both"):
        compare(original, tmp_path / "empty")
    with pytest.raises(PictureError, match="compare pictures of one size"):
        compare_pictures(original / "a.png", write(tmp_path / "wide.png", 1, size=(30, 20)))
