"""The photographs' audit: it sees a lost file, changed pixels and dropped metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import common, photographs
from unlikeness.errors import UsageError
from unlikeness.protect import registry
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.files.targets import Target, find_targets


class Grey:
    """The least that `noise` asks of a model."""

    resolution = 64


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "more/c.png"):
        exif = Image.Exif()
        exif[0x010E] = name
        exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / name, exif=exif)
    (folder / "d.png").write_bytes(b"nothing")
    return folder


def protected(photos: Path, output: Path) -> list[Target]:
    perturber = registry.create("noise", Grey(), {"budget": 8.0})
    protect_folder([photos], output, perturber, method="noise")
    return find_targets([photos], output)


def test_a_clean_run_passes(photos: Path, tmp_path: Path) -> None:
    found = photographs.audit(protected(photos, tmp_path / "out"), tmp_path / "out", 8.0)
    assert found["inputs"] == 4
    assert (found["protected"], found["skipped"], found["lost"]) == (3, 1, 0)
    assert found["over_budget"] == found["metadata_changed"] == found["size_changed"] == 0
    assert found["formats"] == {"JPEG": 1, "PNG": 2}
    assert 0 < found["linf_lossless"] <= 8.001


def test_every_damage_is_counted(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    targets = protected(photos, out)
    with Image.open(out / "a.png") as image:
        Image.new("RGB", image.size).save(out / "a.png")
    (out / "more" / "c.png").unlink()
    found = photographs.audit(targets, out, 8.0)
    assert (found["protected"], found["lost"]) == (2, 1)
    assert found["over_budget"] == 1
    assert found["metadata_changed"] == 1
    (out / "manifest.jsonl").unlink()
    assert photographs.audit(targets, out, 8.0)["lost"] == 4


def test_the_table_names_no_file(photos: Path, tmp_path: Path) -> None:
    results = common.Results(
        tmp_path / "photographs.json", "photographs",
        {"method": "noise", "model": "toybox", "settings": {"budget": 8.0}},
    )  # fmt: skip
    results.cells["audit"] = photographs.audit(protected(photos, tmp_path / "out"), tmp_path / "out", 8.0)
    results.cells["rate"] = {
        "pictures": 4, "seconds": 2.0, "per_second": 2.0, "megapixels_per_second": 0.1, "done_before": 0,
    }  # fmt: skip
    results.finish({})
    assert "| lost | 0 |" in photographs.render(common.load(results.path))
    assert "a.png" not in results.path.read_text()


def test_files_of_one_name_in_two_folders_pass_a_limit(photos: Path, tmp_path: Path) -> None:
    (photos / "more" / "a.png").write_bytes((photos / "a.png").read_bytes())
    found = photographs.first_files(photos, tmp_path / "out", 4)
    assert [target.name for target in found] == ["a.png", "b.jpg", "d.png", "more/a.png"]
    assert len(photographs.first_files(photos, tmp_path / "out", None)) == 5
    with pytest.raises(UsageError, match="--limit is 0"):
        photographs.first_files(photos, tmp_path / "out", 0)


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        photographs.first_files(tmp_path / "none", tmp_path / "out", None)
