"""Every chunk, tag, box and segment of a file is in its copy, or the note says that it is not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.pictures.makers import ALL, ICC, changed, image, samples
from tests.pictures.test_damage import photograph

from unlikeness.pictures import open_picture, save_picture
from unlikeness.pictures.formats.metadata import BEHIND


def saved(source: Path) -> tuple[str | None, Path]:
    """The note, and the path of a copy, whose own note is empty."""
    picture = open_picture(source)
    target = source.with_name("target" + source.suffix)
    save_picture(picture, changed(picture), target, budget=8)
    again = open_picture(target)
    assert again.note is None
    assert np.abs(again.rgb - picture.rgb).max() < 9 / 255 or not picture.lossless
    return picture.note, target


def bmp(
    version: int,
    bits: int,
    *,
    profile: bytes = b"",
    down: bool = False,
    space: bytes = b"DEBM",
    short: int = 0,
) -> bytes:
    """Rows of 8 or fewer bits with a palette, or of 16 bits, under BITMAPV4HEADER or BITMAPV5HEADER."""
    width, height = 13, 7
    colours = 0 if bits > 8 else 1 << bits
    palette = b"".join(bytes((i * 7 & 255, i * 3 & 255, i, 0)) for i in range(colours))
    rows = np.random.default_rng(0).integers(0, 256, (height, -(-width * bits // 32) * 4), np.uint8).tobytes()
    fields = struct.pack(
        "<IiiHHIIiiII",
        version,
        width,
        -height if down else height,
        1,
        bits,
        0,
        len(rows),
        5906,
        5906,
        colours,
        0,
    )
    masks = struct.pack("<IIII", 0x7C00, 0x3E0, 0x1F, 0) if bits > 8 else bytes(16)
    fields += masks + space + bytes(range(1, 37)) + struct.pack("<III", 1000, 2000, 3000)
    if version == 124:
        place = version + len(palette) + len(rows) if profile else 0
        fields += struct.pack("<IIII", 4, place, len(profile) + short, 0)
    start = 14 + version + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(rows) + len(profile), 0, 0, start)
    return head + fields + palette + rows + profile


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
@pytest.mark.parametrize("down", [False, True])
def test_the_icc_profile_of_a_bmp_of_any_depth_is_kept(bits: int, down: bool, tmp_path: Path) -> None:
    source = tmp_path / "source.bmp"
    source.write_bytes(bmp(124, bits, profile=ICC, down=down))
    note, target = saved(source)
    assert note == f"{bits}-bit BMP written as 24-bit BMP"
    data = target.read_bytes()
    start, length = struct.unpack_from("<II", data, 14 + 112)
    assert data[14 + start : 14 + start + length] == ICC
    assert len(data) == struct.unpack_from("<I", data, 2)[0] == 14 + start + length
    before = source.read_bytes()
    assert data[14 + 56 : 14 + 112] == before[14 + 56 : 14 + 112]  # colour space, end points, gamma, intent
    assert data[38:46] == before[38:46]  # density
    assert data[22:26] == before[22:26]  # height, whose sign is the rows' order
    with Image.open(target) as after, Image.open(source) as pillow:
        assert after.size == pillow.size
        difference = np.asarray(after.convert("RGB"), float) - np.asarray(pillow.convert("RGB"), float)
        assert np.abs(difference).max() <= 8


def test_the_colours_of_a_bmp_without_a_profile_are_kept_and_a_short_profile_is_noted(tmp_path: Path) -> None:
    source = tmp_path / "source.bmp"
    source.write_bytes(bmp(108, 8, space=bytes(4)))
    note, target = saved(source)
    assert note == "8-bit BMP written as 24-bit BMP"
    assert target.read_bytes()[14 + 56 : 14 + 108] == source.read_bytes()[14 + 56 : 14 + 108]
    source.write_bytes(bmp(124, 8, profile=ICC, short=5))
    note, target = saved(source)
    assert "its colour profile, which is cut off, left out" in str(note)
    assert struct.unpack_from("<II", target.read_bytes(), 14 + 112) == (0, 0)


def test_a_grey_palette_stays_grey_under_its_header(tmp_path: Path) -> None:
    data = bytearray(bmp(124, 1, profile=ICC))
    data[14 + 124 : 14 + 132] = b"\0\0\0\0\xff\xff\xff\0"
    (tmp_path / "source.bmp").write_bytes(data)
    note, target = saved(tmp_path / "source.bmp")
    assert note == "1-bit BMP written as 8-bit grey BMP"
    with Image.open(target) as after:
        assert after.mode == "L"
    assert target.read_bytes().endswith(ICC)


INKS: list[tuple[int, int, int, Any, bool]] = [
    (332, 3, 1, 1, False),
    (333, 2, 0, "cyan\0magenta\0yellow\0black", False),
    (334, 3, 1, 4, False),
    (336, 3, 2, (0, 255), False),
]


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_the_inks_of_a_tiff_are_kept(compression: str | None, tmp_path: Path) -> None:
    source = tmp_path / "source.tif"
    tifffile.imwrite(
        source, samples(4), photometric="separated", extratags=INKS, compression=compression, metadata=None
    )
    note, target = saved(source)
    assert note is None
    assert tags(target) == tags(source)


def test_the_inks_of_a_tiff_whose_compression_is_not_kept_stay(tmp_path: Path) -> None:
    source = tmp_path / "source.tif"
    image("CMYK").save(source, compression="jpeg", tiffinfo={332: 1, 334: 4})
    note, target = saved(source)
    assert note == "written as 8-bit CMYK TIFF with Deflate"
    assert (tags(target)[332], tags(target)[334]) == (1, 4)


def tags(path: Path) -> dict[int, Any]:
    """All but where the pixels are and how they are divided."""
    layout = {256, 257, 258, 259, 273, 277, 278, 279, 284, 322, 323, 324, 325}
    with tifffile.TiffFile(path) as file:
        found = {tag.code: tag.value for tag in file.pages[0].tags if tag.code not in layout}
    return {code: np.asarray(value).tolist() for code, value in found.items()}


@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_tags_on_the_samples_of_a_tiff_are_kept_while_they_stay(photometric: str, tmp_path: Path) -> None:
    count = 3 if photometric == "rgb" else 1
    more: list[tuple[int, int, int, Any, bool]] = [
        (280, 3, count, (1,) * count, False),
        (281, 3, count, (250,) * count, False),
        (321, 3, 2, (240, 10), False),
        (340, 3, count, (1,) * count, False),
        (341, 3, count, (250,) * count, False),
        (301, 3, 3 * 256, tuple(range(256)) * 3, False),
        (65000, 2, 0, "of its own", False),
    ]
    if count == 3:
        more.append((532, 5, 6, (0, 1, 255, 1) * 3, False))
    else:
        more += [(290, 3, 1, 2, False), (291, 3, 256, tuple(range(256)), False)]
    source = tmp_path / "source.tif"
    array = samples(count) if count == 3 else samples(1)[..., 0]
    tifffile.imwrite(
        source, array, photometric=photometric, extratags=more, metadata=None, compression="zlib"
    )
    note, target = saved(source)
    assert note is None
    before = tags(source)
    assert {code for code, *_ in more} <= before.keys()
    assert {**before, 339: None} == {**tags(target), 339: None}  # unsigned integers, which is the default


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_the_chunks_of_a_png_are_kept_or_named(tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    image("RGB").save(source)
    data = source.read_bytes()
    kept = [
        (b"pCAL", b"x\0" + bytes(10)),
        (b"sCAL", b"\1" + b"1\0" + b"1"),
        (b"sTER", b"\1"),
        (b"oFFs", bytes(9)),
    ]
    silent = [(b"tIME", bytes(7)), (b"iDOT", bytes(28))]
    lost = [(b"prVT", b"unsafe"), (b"dSIG", b"signed")]
    more = b"".join(chunk(kind, body) for kind, body in kept + silent)
    source.write_bytes(data[:33] + more + data[33:])
    note, target = saved(source)
    assert note is None
    assert all(chunk(kind, body) in target.read_bytes() for kind, body in kept)
    source.write_bytes(data[:33] + b"".join(chunk(kind, body) for kind, body in lost) + data[33:])
    note, target = saved(source)
    assert note == "chunks of the old pixels left out (dSIG, prVT)"
    image("P").save(source)
    data = source.read_bytes()
    at = data.index(b"IDAT") - 4
    source.write_bytes(data[:at] + chunk(b"bKGD", b"\1") + data[at:])
    note, _ = saved(source)
    assert note == "palette written as RGB; chunks of the old pixels left out (bKGD)"


@pytest.mark.parametrize("name", ["png-rgb", "webp-rgb", "webp-lossy", "jpeg-420"])
def test_data_behind_a_picture_is_noted_and_padding_is_not(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    ALL[name](source)
    data = source.read_bytes()
    source.write_bytes(data + b"a video" * 50)
    note, target = saved(source)
    assert str(note).startswith(BEHIND.removesuffix(" left out"))
    assert b"a video" not in target.read_bytes()
    source.write_bytes(data + b"ftyp" + bytes(5000))
    assert str(open_picture(source).note).startswith(BEHIND.removesuffix(" left out"))
    source.write_bytes(data + bytes(5000))
    assert open_picture(source).note is None


def test_segments_between_scans_are_noted(tmp_path: Path) -> None:
    source = tmp_path / "source.jpg"
    photograph(60, 40).save(source, progressive=True)
    data = source.read_bytes()
    at = data.rindex(b"\xff\xda")
    source.write_bytes(data[:at] + b"\xff\xfe\0\x06what" + data[at:])
    note, _ = saved(source)
    assert note == "metadata between the picture's scans left out"


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_copy_of_a_copy_loses_nothing_more(name: str, tmp_path: Path) -> None:
    """A copy is of a kind that is kept completely, except alpha, which a lossy format codes again."""
    source = tmp_path / "source"
    ALL[name](source)
    picture = open_picture(source)
    save_picture(picture, changed(picture), tmp_path / "target", budget=8)
    assert open_picture(tmp_path / "target").note in (None, "alpha coded with the picture, not exact")
