"""A protected picture's file keeps everything but the protected pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pictures.makers import ALL, BUDGET, HEIGHT, LOSSLESS, LOSSY, REWRITTEN, WIDTH, changed, image

from unlikeness.pictures import Edit, Picture, open_picture, save_picture


def protected(name: str, folder: Path) -> tuple[Picture, Edit, Picture]:
    """The picture `name`, its edit with the whole budget, and the picture opened from the saved file."""
    source = folder / "source"
    ALL[name](source)
    picture = open_picture(source)
    edit = Edit(picture, budget=BUDGET)
    edit.write(0, 0, changed(picture))
    save_picture(picture, edit, folder / "target")
    return picture, edit, open_picture(folder / "target")


def metadata(path: Path) -> dict[str, object]:
    """All that Pillow reads from a file besides its pixels."""
    with Image.open(path) as image:
        keys = (
            "exif",
            "icc_profile",
            "xmp",
            "dpi",
            "comment",
            "Comment",
            "gamma",
            "progressive",
            "jfif_density",
        )
        found: dict[str, object] = {key: image.info[key] for key in keys if key in image.info}
        return found | {
            "format": image.format,
            "stored size": image.size,
            "orientation": image.getexif().get(274),
        }


@pytest.mark.parametrize("name", ALL)
def test_what_is_kept_of_every_kind(name: str, tmp_path: Path) -> None:
    picture, _, again = protected(name, tmp_path)
    assert again.format == picture.format
    assert again.size == picture.size
    assert again.orientation == picture.orientation
    assert again.depth == picture.depth
    assert again.lossless == picture.lossless
    assert again.has_alpha == picture.has_alpha
    assert (picture.note is not None) == (name in REWRITTEN or name in ("heic-alpha",))
    if picture.format != "HEIC":  # Pillow alone cannot open it
        assert metadata(tmp_path / "target") == metadata(tmp_path / "source")


@pytest.mark.parametrize("name", [*LOSSLESS, *REWRITTEN])
def test_lossless_files_hold_exactly_the_edit_within_the_budget(name: str, tmp_path: Path) -> None:
    picture, edit, again = protected(name, tmp_path)
    assert again.lossless
    width, height = picture.size
    assert np.array_equal(again.rgb, edit.window(0, height, 0, width))
    moved = np.abs(again.rgb - picture.rgb)
    assert moved.max() <= BUDGET / 255 + 1e-6
    assert moved.mean() > 0.3 * BUDGET / 255


@pytest.mark.parametrize("name", LOSSLESS)
def test_alpha_and_further_channels_keep_their_bits(name: str, tmp_path: Path) -> None:
    picture, _, again = protected(name, tmp_path)
    colours = picture.raster.model.colours
    assert again.pixels.dtype == picture.pixels.dtype
    assert np.array_equal(again.pixels[..., colours:], picture.pixels[..., colours:])


@pytest.mark.parametrize("name", [*LOSSLESS, *REWRITTEN])
def test_unchanged_pixels_keep_their_bits(name: str, tmp_path: Path) -> None:
    ALL[name](tmp_path / "source")
    picture = open_picture(tmp_path / "source")
    edit = Edit(picture)
    edit.write(2, 3, np.clip(picture.window(2, 9, 3, 12) + 0.1, 0, 1))
    save_picture(picture, edit, tmp_path / "target")
    again = open_picture(tmp_path / "target")
    outside = np.ones(picture.pixels.shape[:2], bool)
    outside[2:9, 3:12] = False
    assert np.array_equal(again.pixels[outside], picture.pixels[outside])
    assert not np.array_equal(again.pixels[~outside], picture.pixels[~outside])


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_files_come_close(name: str, tmp_path: Path) -> None:
    """Upright, in the right channels, and the same colours: a swap or a turn would be far off."""
    picture, edit, again = protected(name, tmp_path)
    width, height = picture.size
    wanted = edit.window(0, height, 0, width)
    error = np.abs(again.rgb - wanted).mean()
    assert error < 0.5 * np.abs(wanted - wanted.mean(axis=2, keepdims=True)).mean() + 0.05
    assert error < np.abs(again.rgb - wanted[::-1]).mean() / 2


def test_webp_alpha_of_a_lossy_file_keeps_its_bits(tmp_path: Path) -> None:
    picture, _, again = protected("webp-lossy-alpha", tmp_path)
    assert np.array_equal(again.pixels[..., 3], picture.pixels[..., 3])


@pytest.mark.parametrize("name", ALL)
def test_a_picture_that_was_not_changed_is_the_same_file(name: str, tmp_path: Path) -> None:
    ALL[name](tmp_path / "source")
    picture = open_picture(tmp_path / "source")
    save_picture(picture, picture.rgb, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


@pytest.mark.parametrize("name", ["jpeg-420", "png-rgb", "tiff-rgb", "tiff-cmyk", "webp-rgba", "png-16-grey"])
def test_rgb_is_what_a_training_script_gets(name: str, tmp_path: Path) -> None:
    from PIL import ImageOps

    ALL[name](tmp_path / "source")
    picture = open_picture(tmp_path / "source")
    with Image.open(tmp_path / "source") as image:
        upright = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            expected = np.repeat(np.asarray(upright, np.float32)[..., None] / 65535, 3, axis=2)
        else:
            expected = np.asarray(upright.convert("RGB"), np.float32) / 255
    assert picture.rgb.dtype == np.float32
    assert picture.rgb.shape == expected.shape
    tolerance = 1 / 255 if "cmyk" in name else 1e-6  # Pillow rounds the product of the inks
    assert np.abs(picture.rgb - expected).max() <= tolerance
    turned = picture.orientation >= 5
    assert picture.size == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))


def test_an_avif_keeps_what_its_values_mean(tmp_path: Path) -> None:
    ALL["avif-rotated"](tmp_path / "source")
    data = (tmp_path / "source").read_bytes()
    at = data.index(b"colrnclx") + 8
    wide = (12).to_bytes(2, "big") + (16).to_bytes(2, "big")  # Display P3, PQ
    (tmp_path / "source").write_bytes(data[:at] + wide + data[at + 4 :])
    picture = open_picture(tmp_path / "source")
    edit = Edit(picture, budget=BUDGET)
    edit.write(0, 0, changed(picture))
    save_picture(picture, edit, tmp_path / "target")
    saved = (tmp_path / "target").read_bytes()
    assert saved[saved.index(b"colrnclx") + 8 :][:4] == wide
    assert open_picture(tmp_path / "target").size == picture.size


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw"])
def test_prediction_counts_only_where_other_programs_use_it(compression: str, tmp_path: Path) -> None:
    """Tag 317 counts where libtiff uses it; elsewhere it is a leftover."""
    source = image("RGB")
    source.save(tmp_path / "a.tif", compression=compression, tiffinfo={317: 2})
    picture = open_picture(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as read:
        assert np.array_equal(np.asarray(read), picture.pixels)
    edit = Edit(picture, budget=BUDGET)
    edit.write(0, 0, changed(picture))
    save_picture(picture, edit, tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as read:
        assert np.array_equal(np.asarray(read), edit.stored)
