"""Metadata is copied byte for byte, and stored turns stay stored turns."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from tests.pictures.makers import ICC, LOSSLESS, LOSSY, WIDTH, XMP, changed, exif, image, samples

from unlikeness.pictures import open_picture, save_picture
from unlikeness.pictures.formats.base import to_stored, to_upright


def protect(source: Path) -> Path:
    """The path of a protected copy of `source`."""
    picture = open_picture(source)
    target = source.with_name("target" + source.suffix)
    save_picture(picture, changed(picture), target, budget=8)
    return target


def jpeg_segments(path: Path) -> list[tuple[int, bytes]]:
    """(marker, body) of everything before the first scan."""
    data, at, found = path.read_bytes(), 2, []
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def kept_segments(path: Path) -> list[tuple[int, bytes]]:
    return [s for s in jpeg_segments(path) if 0xE0 <= s[0] <= 0xEF or s[0] == 0xFE]


def chunks(path: Path) -> list[bytes]:
    """All PNG chunks but the pixels, whole."""
    data, at, found = path.read_bytes(), 8, []
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at:end])
        at = end
    return [c for c in found if c[4:8] != b"IDAT"]


@pytest.mark.parametrize("name", [name for name in LOSSY if name.startswith("jpeg")])
def test_jpeg_keeps_tables_sampling_scan_and_every_segment(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source.jpg"
    LOSSY[name](source)
    target = protect(source)
    colour_transform = (
        0xEE if name == "jpeg-cmyk" else None
    )  # Adobe's segment is the encoder's to write there
    kept = [[s for s in kept_segments(p) if s[0] != colour_transform] for p in (source, target)]
    assert kept[0] == kept[1] != []
    with Image.open(source) as before, Image.open(target) as after:
        if before.mode != "CMYK":
            assert after.quantization == before.quantization  # type: ignore[attr-defined]
        assert after.layer == before.layer  # type: ignore[attr-defined]
        assert after.info.get("progressive") == before.info.get("progressive")
    frames = [[s[0] for s in jpeg_segments(p) if s[0] in (0xC0, 0xC1, 0xC2)] for p in (source, target)]
    assert frames[0] == frames[1]


def test_cmyk_without_adobe_s_segment_stays_without_and_shows_the_same(tmp_path: Path) -> None:
    """Some programs take the inks of a file with the segment as inverted, and of one without it not."""
    source = tmp_path / "source.jpg"
    LOSSY["jpeg-cmyk"](source)
    data = source.read_bytes()
    at = data.index(b"\xff\xee")
    source.write_bytes(data[:at] + data[at + 16 :])
    assert 0xEE not in [marker for marker, _ in jpeg_segments(source)]
    picture = open_picture(source)
    target = protect(source)
    assert 0xEE not in [marker for marker, _ in jpeg_segments(target)]
    moved = np.abs(open_picture(target).rgb - picture.rgb)
    assert 0 < float(moved.mean()) < 16 / 255


def test_jpeg_keeps_unknown_segments_and_three_tables(tmp_path: Path) -> None:
    source = tmp_path / "source.jpg"
    tables = [[1 + i] * 64 for i in range(3)]
    extra = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", 2 + len(body)) + body
        for marker, body in ((0xED, b"Photoshop 3.0\0abc"), (0xE5, b"whatever"), (0xE1, b"second" * 9000))
    )
    image("RGB").save(source, qtables=tables, extra=extra)
    target = protect(source)
    assert kept_segments(target) == kept_segments(source)
    with Image.open(target) as after:
        assert after.quantization == dict(enumerate(tables))  # type: ignore[attr-defined]


def test_jpeg_pictures_behind_the_picture_are_left_out_and_noted(tmp_path: Path) -> None:
    source = tmp_path / "source.jpg"
    image("RGB").save(source, "MPO", save_all=True, append_images=[image("RGB", 5)])
    assert "behind the picture" in str(open_picture(source).note)
    target = protect(source)
    assert open_picture(target).note is None
    with Image.open(target) as after:
        assert after.format == "JPEG"


@pytest.mark.parametrize("subsampling", ["440", "411"])
def test_unusual_subsampling_is_written_finer_and_noted(subsampling: str, tmp_path: Path) -> None:
    source = tmp_path / "source.jpg"
    source.write_bytes(imagecodecs.jpeg8_encode(samples(3), level=90, subsampling=subsampling))
    picture = open_picture(source)
    assert "4:4:4" in str(picture.note)
    assert open_picture(protect(source)).note is None


def test_near_noise_at_the_finest_tables_is_written(tmp_path: Path) -> None:
    """More than two bytes a pixel do not fit where Pillow writes a progressive scan."""
    source = tmp_path / "source.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    y, x = np.mgrid[:300, :300]
    smooth = np.stack([x, y, x], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(source, qtables=[[1] * 64], subsampling=0, progressive=True)
    picture = open_picture(source)
    save_picture(picture, noise, tmp_path / "target.jpg")
    assert open_picture(tmp_path / "target.jpg").size == (300, 300)


@pytest.mark.parametrize("name", [name for name in LOSSLESS if name.startswith("png")])
def test_png_keeps_every_chunk(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    LOSSLESS[name](source)
    assert chunks(protect(source)) == chunks(source)


@pytest.mark.parametrize("name", ["webp-rgba", "webp-lossy"])
def test_webp_keeps_metadata_and_quality(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source.webp"
    (LOSSLESS | LOSSY)[name](source)
    target = protect(source)
    with Image.open(source) as before, Image.open(target) as after:
        for key in ("exif", "xmp", "icc_profile"):
            assert after.info.get(key) == before.info.get(key)
    lossless = [b"VP8L" in path.read_bytes()[:4000] for path in (source, target)]
    assert lossless[0] == lossless[1] == (name == "webp-rgba")


@pytest.mark.parametrize("quality", [10, 40, 75, 85, 100])
def test_the_quality_of_a_webp_is_read_from_its_quantisers(quality: int, tmp_path: Path) -> None:
    from unlikeness.pictures.formats.webp import quality_of

    y, x = np.mgrid[:96, :96]
    array = (np.stack([x, y, x + y], axis=2) * 1.3 + 20 * np.sin(x * y / 40)[..., None]).clip(0, 255)
    Image.fromarray(array.astype(np.uint8)).save(tmp_path / "a.webp", quality=quality, method=4)
    found = quality_of((tmp_path / "a.webp").read_bytes()[20:])
    assert found == pytest.approx(quality, abs=6)


def test_tiff_keeps_tags_and_directories_in_either_byte_order(tmp_path: Path) -> None:
    for order in "<>":
        source = tmp_path / "source.tif"
        tags = [
            (34675, 7, len(ICC), ICC, False),
            (700, 1, len(XMP), XMP, False),
            (65000, 3, 3, (7, 8, 9), False),
        ]
        array = np.asarray(image("RGB"))
        tifffile.imwrite(
            source, array, photometric="rgb", byteorder=order, extratags=tags, resolution=(300, 300),
            resolutionunit="INCH", description="a cat", metadata=None, compression="lzw",
        )  # fmt: skip
        target = protect(source)
        with tifffile.TiffFile(source) as before, tifffile.TiffFile(target) as after:
            assert after.byteorder == before.byteorder == order
            for number in (34675, 700, 65000, 282, 283, 296, 270, 259):
                assert after.pages[0].tags[number].value == before.pages[0].tags[number].value


def test_tiff_keeps_exif_and_gps(tmp_path: Path) -> None:
    source = tmp_path / "source.tif"
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x829A] = 0.01
    tags.get_ifd(0x8825)[1] = "N"
    image("RGB").save(source, exif=tags.tobytes())
    with Image.open(source) as before, Image.open(protect(source)) as after:
        for number in (0x8769, 0x8825):
            assert after.getexif().get_ifd(number) == before.getexif().get_ifd(number) != {}


@pytest.mark.parametrize("kind", [4, 13, 16, 18])
def test_bigtiff_keeps_exif_whatever_its_pointers_type_and_notes_what_it_drops(
    kind: int, tmp_path: Path
) -> None:
    def directory(*entries: tuple[int, int, int, bytes]) -> bytes:
        packed = b"".join(struct.pack("<HHQ8s", *entry) for entry in entries)
        return struct.pack("<Q", len(entries)) + packed + bytes(8)

    def number(tag: int, value: int, kind: int = 16) -> tuple[int, int, int, bytes]:
        return tag, kind, 1, struct.pack("<Q", value)

    source = tmp_path / "source.tif"
    array = samples(1)[..., 0]
    within = directory((0x829A, 5, 1, struct.pack("<II", 1, 100)), number(65001, 7))
    at = 16 + array.size
    first = directory(
        number(256, array.shape[1]), number(257, array.shape[0]), number(258, 8, 3), number(259, 1, 3),
        number(262, 1, 3), number(273, 16), number(277, 1, 3), number(279, array.size),
        number(34665, at, kind),
    )  # fmt: skip
    header = b"II+\0" + struct.pack("<HHQ", 8, 0, at + len(within))
    source.write_bytes(header + array.tobytes() + within + first)
    assert open_picture(source).note == "tags of 64-bit numbers left out"
    target = protect(source)
    assert open_picture(target).note is None
    with Image.open(target) as after:
        assert after.getexif().get_ifd(0x8769) == {0x829A: 0.01}


def test_bmp_keeps_all_but_the_pixels(tmp_path: Path) -> None:
    """32 bits with an unused byte, top down, and data behind the pixels."""
    source = tmp_path / "source.bmp"
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    head = struct.pack("<2sIHHI", b"BM", 54 + 140 + 3, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, 7, -5, 1, 32, 0, 140, 2835, 2835, 0, 0
    )
    source.write_bytes(head + array.tobytes() + b"end")
    picture = open_picture(source)
    assert np.array_equal(picture.pixels, array[..., 2::-1])
    data = protect(source).read_bytes()
    assert data[:54] == head
    assert data[-3:] == b"end"
    after = np.frombuffer(data[54:-3], np.uint8).reshape(array.shape)
    assert np.array_equal(after[..., 3], array[..., 3])
    assert not np.array_equal(after[..., :3], array[..., :3])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_pixels_are_upright_in_memory_and_turned_in_the_file(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    source = tmp_path / f"source{suffix}"
    options: dict[str, Any] = {"quality": 95} if suffix == ".jpg" else {}
    if suffix == ".webp":
        options = {"lossless": True}
    image("RGB").save(source, exif=exif(orientation), **options)
    picture = open_picture(source)
    with Image.open(source) as raw:
        upright = np.asarray(ImageOps.exif_transpose(raw), np.float32) / 255
    assert picture.orientation == orientation
    assert np.array_equal(picture.rgb, upright)
    marked = picture.rgb
    marked[:3, :5] = 1.0  # the upper left corner as it is seen
    save_picture(picture, marked, tmp_path / f"target{suffix}")
    again = open_picture(tmp_path / f"target{suffix}")
    assert again.orientation == orientation
    assert again.raster.pixels.shape == picture.raster.pixels.shape
    assert again.rgb[:2, :4].min() > 0.8
    assert np.abs(again.rgb[8:, 8:] - picture.rgb[8:, 8:]).mean() < 0.05


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_undone_without_a_copy(orientation: int) -> None:
    stored = np.arange(2 * WIDTH * 3).reshape(2, WIDTH, 3)
    upright = to_upright(stored, orientation)
    assert np.shares_memory(upright, stored)
    assert np.array_equal(to_stored(upright, orientation), stored)
