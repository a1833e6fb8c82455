"""Damaged data is refused even where a decoder would conceal the damage; healthy data never is."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image
from tests.pictures.makers import image, samples

from unlikeness.errors import PictureError
from unlikeness.pictures import open_picture


def photograph(width: int = 400, height: int = 300) -> Image.Image:
    """Smooth shapes with some grain, so that coded data is like a camera's."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 17 + c) * np.cos(y / (11 + c)) for c in range(3)], axis=2)
    grain = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    return Image.fromarray((127 + 80 * waves + grain).clip(0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def refusal(data: bytes, folder: Path) -> str:
    (folder / "damaged").write_bytes(data)
    with pytest.raises(PictureError) as caught:
        open_picture(folder / "damaged")
    return str(caught.value)


WAYS: dict[str, dict[str, Any]] = {
    "baseline": {"quality": 90},
    "coarse": {"quality": 30, "optimize": True},
    "full colour": {"quality": 98, "subsampling": 0},
    "progressive": {"quality": 75, "progressive": True},
    "restarts of rows": {"quality": 90, "restart_marker_rows": 2},
    "restarts of blocks": {"quality": 90, "restart_marker_blocks": 5},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_jpeg_with_a_lost_or_overwritten_middle_is_refused(way: str, tmp_path: Path) -> None:
    data = jpeg(photograph(), **WAYS[way])
    start = data.index(b"\xff\xda") + 14
    rng = random.Random(0)
    for _ in range(6):
        at = rng.randrange(start, len(data) - 2100)
        for damaged in (
            data[:at] + data[at + 2048 :],
            data[:at] + bytes(2048) + data[at + 2048 :],
            data[:at] + b"\xff" * 2048 + data[at + 2048 :],
        ):
            assert "damaged" in refusal(damaged, tmp_path)


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_lost_restart_intervals_are_counted(count: int, tmp_path: Path) -> None:
    """Eight of them leave the markers' numbers in order."""
    data = jpeg(photograph(), quality=90, restart_marker_blocks=5)
    marks = [at for at in range(len(data)) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    assert "missing" in refusal(data[: marks[3]] + data[marks[3 + count] :], tmp_path)


def test_a_jpeg_without_its_end_is_refused(tmp_path: Path) -> None:
    data = jpeg(photograph())
    assert "truncated" in refusal(data[:-2], tmp_path)
    assert "missing" in refusal(data[: len(data) // 2] + b"\xff\xd9", tmp_path)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", ["photograph", "one colour", "half", "tiny", "gray", "inks"])
def test_healthy_jpegs_of_all_kinds_give_what_pillow_gives(
    kind: str, progressive: bool, tmp_path: Path
) -> None:
    half = Image.new("RGB", (320, 240), "white")
    half.paste(photograph(100, 100), (50, 40))
    picture = {
        "photograph": photograph(210, 150),
        "one colour": Image.new("RGB", (320, 240), (10, 200, 30)),
        "half": half,
        "tiny": image("RGB").resize((3, 5)),
        "gray": image("L"),
        "inks": image("CMYK"),
    }[kind]
    for quality in (3, 95):
        for more in (
            {},
            {"optimize": True},
            {"subsampling": 0},
            {"subsampling": 1},
            {"restart_marker_blocks": 1},
            {"restart_marker_rows": 1},
        ):
            (tmp_path / "a.jpg").write_bytes(jpeg(picture, quality=quality, progressive=progressive, **more))
            with Image.open(tmp_path / "a.jpg") as pillow:
                expected = np.asarray(pillow)
            found = open_picture(tmp_path / "a.jpg").pixels
            assert np.array_equal(found, expected.reshape(found.shape))


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "411", "440"])
def test_healthy_jpegs_of_another_encoder(subsampling: str, tmp_path: Path) -> None:
    for level in (20, 100):
        (tmp_path / "a.jpg").write_bytes(
            imagecodecs.jpeg8_encode(np.asarray(photograph(90, 70)), level=level, subsampling=subsampling)
        )
        assert open_picture(tmp_path / "a.jpg").size == (90, 70)


@pytest.mark.parametrize("extra", [b"\0", b"\0" * 700, b"\xff" * 9, b"\x12\x34\x56"])
def test_what_some_cameras_leave_before_the_end_is_no_damage(extra: bytes, tmp_path: Path) -> None:
    data = jpeg(photograph(), quality=90)
    (tmp_path / "a.jpg").write_bytes(data[:-2] + extra + data[-2:])
    assert open_picture(tmp_path / "a.jpg").size == (400, 300)


def test_a_png_with_a_wrong_checksum_or_short_data_is_refused(tmp_path: Path) -> None:
    image("RGB").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"IDAT")
    spoilt = bytearray(data)
    spoilt[at + 40] ^= 1
    assert "checksum" in refusal(bytes(spoilt), tmp_path)
    text = struct.pack(">I", 9) + b"tEXtTitle\0cat" + struct.pack(">I", zlib.crc32(b"tEXtTitle\0car"))
    assert "checksum" in refusal(data[: at - 4] + text + data[at - 4 :], tmp_path)
    (length,) = struct.unpack(">I", data[at - 4 : at])
    short = zlib.compress(zlib.decompress(data[at + 4 : at + 4 + length])[:-40])
    body = struct.pack(">I", len(short)) + b"IDAT" + short + struct.pack(">I", zlib.crc32(b"IDAT" + short))
    assert "damaged or truncated" in refusal(data[: at - 4] + body + data[-12:], tmp_path)


def test_a_tiff_strip_that_is_short_or_fails_its_checksum_is_refused(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", samples(3), photometric="rgb", compression="zlib", metadata=None)
    data = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    raw = zlib.decompress(data[start : start + size])
    short = zlib.compress(raw[:-30], 9)[:size].ljust(size, b"\0")
    assert "damaged" in refusal(data[:start] + short + data[start + size :], tmp_path)
    stored = data[start : start + size - 1] + bytes([data[start + size - 1] ^ 1])
    assert "damaged" in refusal(data[:start] + stored + data[start + size :], tmp_path)


def test_a_tiff_strip_of_zeros_is_found_by_its_checksum(tmp_path: Path) -> None:
    photograph().save(tmp_path / "a.tif", compression="tiff_adobe_deflate")
    data = (tmp_path / "a.tif").read_bytes()
    rng = random.Random(0)
    for _ in range(10):
        at = rng.randrange(len(data) // 4, len(data) * 3 // 4)
        assert "damaged" in refusal(data[:at] + bytes(2048) + data[at + 2048 :], tmp_path)


def test_a_last_strip_that_is_filled_up_is_no_damage(tmp_path: Path) -> None:
    array = samples(1)[..., 0]
    packed = zlib.compress(array.tobytes() + bytes(400))
    entries = [
        (256, 34),
        (257, 21),
        (258, 8),
        (259, 8),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 21),
        (279, len(packed)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", n, 4, 1, v) for n, v in entries
    )
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    (tmp_path / "a.tif").write_bytes(head + packed + directory + bytes(4))
    assert np.array_equal(open_picture(tmp_path / "a.tif").pixels[..., 0], array)


@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_a_heic_or_avif_with_zeros_in_its_data_is_refused(kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    if kind == "avif":
        photograph().save(buffer, "AVIF", quality=90)
    else:
        pillow_heif.from_pillow(photograph()).save(buffer, quality=90)
    data = buffer.getvalue()
    rng = random.Random(0)
    for _ in range(5):
        at = rng.randrange(len(data) // 4, len(data) * 3 // 4)
        assert "damaged" in refusal(data[:at] + bytes(2048) + data[at + 2048 :], tmp_path)


@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_pictures_of_one_colour_and_patterns_are_no_damage(kind: str, tmp_path: Path) -> None:
    squares = (np.indices((256, 256)).sum(0) // 8 % 2 * 255).astype(np.uint8)
    for picture in (Image.new("RGB", (700, 500)), Image.fromarray(squares).convert("RGB")):
        if kind == "avif":
            picture.save(tmp_path / "a", "AVIF", quality=90)
        else:
            pillow_heif.from_pillow(picture).save(tmp_path / "a", quality=90)
        assert open_picture(tmp_path / "a").size == picture.size
