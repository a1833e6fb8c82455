"""Masks: black stays as it was to the last bit, white is protected as ever, and a wrong mask is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.protect.test_masked import FEW
from tests.protect.test_tiles import write

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.errors import PictureError, UsageError
from unlikeness.pictures import open_picture
from unlikeness.protect import registry
from unlikeness.protect.files.check import BLACK
from unlikeness.protect.files.folder import Outcome, protect_folder
from unlikeness.protect.files.manifest import NAME, digest
from unlikeness.protect.files.masks import open_mask
from unlikeness.protect.settings import ResolutionMode


def masked_left(path: Path, width: int, height: int) -> Path:
    """Black on the left half, white on the right."""
    values = np.zeros((height, width), np.uint8)
    values[:, width // 2 :] = 255
    Image.fromarray(values).save(path)
    return path


def run(source: Path, output: Path, model: TextToImage, method: str = "rid", **options: Any) -> Outcome:
    protection = registry.create(method, model, {"budget": 8.0, **FEW[method]})
    return protect_folder([source], output, protection, method=method, **options)


def change(original: Path, saved: Path) -> np.ndarray[Any, Any]:
    """[H, W]: the largest change of each pixel, upright, n/255."""
    difference: np.ndarray[Any, Any] = open_picture(saved).rgb - open_picture(original).rgb
    moved: np.ndarray[Any, Any] = np.abs(difference).max(2) * 255
    return moved


def recipes(output: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (output / NAME).read_text().splitlines()]
    return {line["path"]: line["recipe"] for line in lines}


@pytest.mark.parametrize("method", FEW)
@pytest.mark.parametrize("mode", ["fit", "tiles", "both"])
def test_black_is_untouched_and_white_is_changed(
    tmp_path: Path, model: TextToImage, method: str, mode: str
) -> None:
    source = write(tmp_path / "a.png", 96, 64)
    mask = masked_left(tmp_path / "mask.png", 96, 64)
    scale = ResolutionMode(mode=mode, detail=1.0)
    (entry,) = run(source, tmp_path / "out", model, method, mask=mask, at=scale).protected
    moved = change(source, tmp_path / "out" / "a.png")
    assert not moved[:, :48].any()
    # The method encoder keeps to 36 dB, and to less where the picture is flat.
    assert (moved[:, 52:] > 0).mean() > (0.2 if method == "encoder" else 0.8)
    assert entry.linf == pytest.approx(moved.max(), abs=1e-3)
    assert moved.max() <= 8.001


def test_pictures_without_a_mask_are_what_they_were_beside_masked_ones(
    tmp_path: Path, model: TextToImage
) -> None:
    photos = tmp_path / "photos"
    (photos / "trip").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "trip/a.png", "z.jpg")):
        write(photos / name, 64, 64, seed=i)
    (tmp_path / "masks" / "trip").mkdir(parents=True)
    masked_left(tmp_path / "masks" / "trip" / "a.bmp", 64, 64)
    masked_left(tmp_path / "masks" / "z.png", 64, 64)
    run(photos, tmp_path / "plain", model)
    outcome = run(photos, tmp_path / "out", model, mask=tmp_path / "masks")
    assert len(outcome.protected) == 4
    for name in ("a.png", "b.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    moved = change(photos / "trip" / "a.png", tmp_path / "out" / "trip" / "a.png")
    assert not moved[:, :32].any()
    assert moved[:, 40:].any()
    found = recipes(tmp_path / "out")
    assert "mask" not in found["a.png"]
    assert found["trip/a.png"]["mask"] == digest(tmp_path / "masks" / "trip" / "a.bmp")
    assert found["z.jpg"]["mask"] == digest(tmp_path / "masks" / "z.png")


def test_a_changed_a_new_and_a_removed_mask_are_noticed(tmp_path: Path, model: TextToImage) -> None:
    photos, masks, output = tmp_path / "photos", tmp_path / "masks", tmp_path / "out"
    photos.mkdir()
    masks.mkdir()
    write(photos / "a.png", 40, 40, seed=1)
    write(photos / "b.png", 40, 40, seed=2)
    masked_left(masks / "a.png", 40, 40)
    run(photos, output, model, mask=masks)
    assert run(photos, output, model, mask=masks).before == ["a.png", "b.png"]
    Image.new("L", (40, 40), 128).save(masks / "a.png")
    assert [entry.path for entry in run(photos, output, model, mask=masks).protected] == ["a.png"]
    masked_left(masks / "b.png", 40, 40)
    assert [entry.path for entry in run(photos, output, model, mask=masks).protected] == ["b.png"]
    assert [e.path for e in run(photos, output, model).protected] == ["a.png", "b.png"]


def test_a_mask_is_for_the_picture_as_it_is_seen(tmp_path: Path, model: TextToImage) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 80 × 40, seen 40 × 80
    source = tmp_path / "turned.png"
    Image.open(write(tmp_path / "x.png", 80, 40)).save(source, exif=exif)
    upright = np.zeros((80, 40), np.uint8)
    upright[60:] = 255
    Image.fromarray(upright).save(tmp_path / "seen.png")
    # The same mask, itself stored turned: as it is seen, it is the same.
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "stored.png", exif=exif)
    for mask in ("seen.png", "stored.png"):
        run(source, tmp_path / mask[:-4], model, mask=tmp_path / mask)
        moved = change(source, tmp_path / mask[:-4] / "turned.png")
        assert moved.shape == (80, 40)
        assert not moved[:60].any()
        assert moved[64:].any()


@pytest.mark.parametrize("kind", ["16 bits", "alpha", "grey", "small mask"])
def test_all_kinds_of_pictures_and_masks_of_other_sizes(
    tmp_path: Path, model: TextToImage, kind: str
) -> None:
    source = write(tmp_path / "a.png", 120, 90)
    mask = masked_left(tmp_path / "mask.png", 120, 90)
    if kind == "16 bits":
        import tifffile

        source = tmp_path / "a.tif"
        rgb = np.random.default_rng(0).integers(20_000, 40_000, (90, 120, 3), dtype=np.uint16)
        tifffile.imwrite(source, rgb, photometric="rgb")
    elif kind == "alpha":
        image = Image.open(source).convert("RGBA")
        image.putalpha(100)
        image.save(source)
    elif kind == "grey":
        Image.open(source).convert("L").save(source)
    else:
        mask = masked_left(tmp_path / "mask.png", 40, 30)
    (entry,) = run(source, tmp_path / "out", model, mask=mask).protected
    moved = change(source, tmp_path / "out" / source.name)
    edge = 60 - (3 if kind == "small mask" else 0)  # a resized mask has a soft edge
    assert not moved[:, :edge].any()
    assert moved[:, 66:].any()
    assert entry.linf is not None
    assert entry.linf <= 8.001


def test_a_black_mask_leaves_a_copy_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.png", 40, 30)
    Image.new("L", (40, 30), 0).save(tmp_path / "mask.png")
    output = tmp_path / "out"
    assert main(["protect", str(source), "-o", str(output), "--mask", str(tmp_path / "mask.png"), "-q"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("nothing was protected, 1 unchanged (copies, not protected)")
    assert f"unchanged a.png: {BLACK}" in said.err
    assert json.loads((output / NAME).read_text())["note"] == BLACK
    assert not change(source, output / "a.png").any()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_mask_of_another_shape_is_one_sentence_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: list[str]
) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        write(photos / name, 40, 30)
    masked_left(masks / "a.png", 40, 40)
    (masks / "b.png").write_bytes(b"nothing")
    masked_left(masks / "c.png", 80, 60)
    command = ["protect", str(photos), "-o", str(tmp_path / "out"), "--mask", str(masks), "-q", *dry]
    assert main(command) == (0 if dry else 1)
    told = capsys.readouterr()
    text = told.out if dry else told.err
    lines = [line for line in text.splitlines() if line.startswith("skip")]
    assert len(lines) == 2
    assert "mask a.png is 40 × 40 px, another shape than the picture's 40 × 30 px" in lines[0]
    assert "mask b.png: it is no JPEG" in lines[1]
    assert (tmp_path / "out" / "c.png").exists() != bool(dry)
    if not dry:
        assert str(tmp_path) not in (tmp_path / "out" / NAME).read_text()


def test_misuse_is_said_before_anything_is_done(tmp_path: Path, model: TextToImage) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for name in ("a.png", "b.png"):
        write(photos / name, 40, 30)
    mask = masked_left(tmp_path / "mask.png", 40, 30)
    wrong = [
        (tmp_path / "none", "is no file and no folder"),
        (mask, "is one picture, and there are 2 to protect"),
        (masks, "holds no mask that has the name of a picture, such as a.png"),
        (photos, "is also a picture to protect"),
    ]
    for path, words in wrong:
        with pytest.raises(UsageError, match=words) as caught:
            run(photos, tmp_path / "out", model, mask=path)
        assert "\n" not in str(caught.value)
    shutil.copy(mask, masks / "a.bmp")
    shutil.copy(mask, masks / "a.tif")
    with pytest.raises(UsageError, match=r"are both masks of a\.png"):
        run(photos, tmp_path / "out", model, mask=masks)
    assert not (tmp_path / "out").exists()
    shutil.copy(mask, masks / "a.png")  # the very name wins
    assert len(run(photos, tmp_path / "out", model, mask=masks).protected) == 2
    assert len(run(photos / "a.png", tmp_path / "one", model, mask=mask).protected) == 1


def test_a_mask_is_grey_and_may_differ_by_a_rounded_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (33, 20), (255, 0, 0)).save(tmp_path / "red.png")
    mask = open_mask(tmp_path / "red.png", (1000, 600))  # 33 for 33.3
    assert mask.values.shape == (600, 1000)
    assert set(np.unique(mask.values)) == {76}
    with pytest.raises(PictureError, match="another shape"):
        open_mask(tmp_path / "red.png", (600, 1000))
