"""No small, unprotected copy travels in the metadata, and the rest of it keeps every byte."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import piexif
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from tests.pictures.makers import changed, exif, image, samples
from tests.pictures.test_metadata import chunks, jpeg_segments

from unlikeness.pictures import open_picture, save_picture
from unlikeness.pictures.formats.metadata import CREDENTIALS, NOTE, exif_without, resources_without


def small() -> bytes:
    """A JPEG to be found again."""
    buffer = io.BytesIO()
    image("RGB", 3).resize((16, 12)).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[:2] + data[20:]  # without the JFIF segment, which piexif would take out


def with_thumbnail() -> bytes:
    """EXIF with a maker note full of bytes, a place and a thumbnail, as piexif writes it."""
    block: bytes = piexif.dump({
        "0th": {0x010F: b"Camera", 0x010E: b"a cat"},
        "Exif": {0x829A: (1, 100), 0x927C: bytes(range(200))},
        "GPS": {1: b"N"},
        "1st": {0x0103: 6},
        "thumbnail": small(),
    })  # fmt: skip
    return block


def saved(source: Path) -> Path:
    picture = open_picture(source)
    target = source.with_name("target" + source.suffix)
    save_picture(picture, changed(picture), target, budget=8)
    return target


def test_an_exif_thumbnail_becomes_zeros_and_nothing_else_changes() -> None:
    for data in (with_thumbnail(), with_thumbnail()[6:]):
        at, length = data.index(small()), len(small())
        clean = exif_without(data)
        assert len(clean) == len(data)
        assert clean[at : at + length] == bytes(length)
        rest = bytearray(data)
        rest[at : at + length] = bytes(length)
        differing = [i for i, (a, b) in enumerate(zip(rest, clean, strict=True)) if a != b]
        assert 1 <= len(differing) <= 4  # the link to the thumbnail's directory
        assert differing[-1] - differing[0] < 4
        assert exif_without(clean) is clean
    told = piexif.load(exif_without(with_thumbnail()))
    assert told["thumbnail"] is None
    assert told["1st"] == {}
    assert told["0th"][0x010F] == b"Camera"
    assert told["Exif"][0x927C] == bytes(range(200))
    assert told["GPS"][1] == b"N"


def test_a_thumbnail_without_compression_becomes_zeros_too() -> None:
    pixels = samples(3)[:4, :5].tobytes()
    entries = [(0x0111, 4, 1, 8 + 6 + 6 + 24), (0x0117, 4, 1, len(pixels))]
    first = struct.pack(">HI", 0, 8 + 6)
    second = struct.pack(">H", 2) + b"".join(struct.pack(">HHII", *e) for e in entries) + bytes(4)
    data = b"MM\0*" + struct.pack(">I", 8) + first + second + pixels
    clean = exif_without(data)
    assert clean[-len(pixels) :] == bytes(len(pixels))
    assert clean[10:14] == bytes(4)


@pytest.mark.parametrize("end", [0, 4, 9, 30, 150, -20])
def test_damaged_exif_is_left_as_it_is_or_cleaned_but_never_fails(end: int) -> None:
    data = with_thumbnail()[:end]
    assert len(exif_without(data)) == len(data)


def test_exif_without_a_thumbnail_keeps_every_byte() -> None:
    assert exif_without(exif(6)) == exif(6)
    assert exif_without(b"Exif\0\0nothing like it") == b"Exif\0\0nothing like it"


def heic(path: Path) -> None:
    import pillow_heif

    pillow_heif.from_pillow(image("RGB")).save(path, quality=95, exif=with_thumbnail())


MAKERS: dict[str, Callable[[Path], None]] = {
    ".jpg": lambda path: image("RGB").save(path, exif=with_thumbnail()),
    ".png": lambda path: image("RGB").save(path, exif=with_thumbnail()),
    ".webp": lambda path: image("RGB").save(path, lossless=True, exif=with_thumbnail()),
    ".avif": lambda path: image("RGB").save(path, exif=with_thumbnail()),
    ".heic": heic,
}


@pytest.mark.parametrize("suffix", MAKERS)
def test_every_format_drops_it_with_a_note(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"source{suffix}"
    MAKERS[suffix](source)
    assert small() in source.read_bytes()
    assert NOTE in str(open_picture(source).note)
    target = saved(source)
    assert small() not in target.read_bytes()
    assert exif_without(with_thumbnail())[6:] in target.read_bytes()
    assert open_picture(target).note is None


def resource(number: int, data: bytes, name: bytes = b"") -> bytes:
    pascal = bytes([len(name)]) + name
    head = b"8BIM" + struct.pack(">H", number) + pascal + b"\0" * (len(pascal) % 2)
    return head + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)


def test_photoshops_thumbnails_are_cut_out_of_its_resources(tmp_path: Path) -> None:
    before, after = resource(0x0404, b"iptc!"), resource(0x03ED, b"resolution", b"name")
    thumbnail = resource(0x040C, bytes(28) + small())
    assert resources_without(before + thumbnail + after) == before + after
    assert resources_without(thumbnail) == b""
    assert resources_without(before + after) == before + after
    cut = (before + thumbnail)[:-30]
    assert resources_without(cut) == cut
    body = b"Photoshop 3.0\0" + before + thumbnail + after
    extension = b"JFXX\0\x10" + small()
    segments = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", 2 + len(data)) + data
        for marker, data in ((0xED, body), (0xE0, extension), (0xE2, b""))
    )
    source = tmp_path / "source.jpg"
    image("RGB").save(source, extra=segments)
    target = saved(source).read_bytes()
    assert small() not in target
    assert b"Photoshop 3.0\0" + before + after in target
    assert b"JFXX" not in target
    assert b"\xff\xe2\0\x02" in target


@pytest.mark.parametrize("first", [40000, 65480, 70000])
def test_a_thumbnail_across_segments_is_cut_out(first: int, tmp_path: Path) -> None:
    """Behind a resource that leaves it in the first segment, across the border, and in the second one."""
    before, after = resource(0x0404, b"i" * first), resource(0x03ED, b"resolution")
    resources = before + resource(0x040C, bytes(28) + small()) + after
    full = 0xFFFF - 2 - 14
    segments = b"".join(
        struct.pack(">HH", 0xFFED, 16 + len(part)) + b"Photoshop 3.0\0" + part
        for part in (resources[:full], resources[full:])
        if part
    )
    source = tmp_path / "source.jpg"
    image("RGB").save(source, extra=segments)
    assert NOTE in str(open_picture(source).note)
    target = saved(source)
    assert small()[:100] not in target.read_bytes()
    assert small()[-100:] not in target.read_bytes()
    kept = b"".join(body[14:] for marker, body in jpeg_segments(target) if marker == 0xED)
    assert kept == before + after
    assert open_picture(target).note is None


def test_photoshops_layers_do_not_stay_in_a_tiff(tmp_path: Path) -> None:
    source = tmp_path / "source.tif"
    layers = b"Adobe Photoshop Document Data Block\0" + samples(3).tobytes()
    resources = resource(0x0404, b"iptc!") + resource(0x040C, bytes(28) + small())
    tags = [(37724, 7, len(layers), layers, False), (34377, 1, len(resources), resources, False)]
    tifffile.imwrite(source, np.asarray(image("RGB")), photometric="rgb", extratags=tags, metadata=None)
    note = str(open_picture(source).note)
    assert "layers left out" in note
    assert NOTE in note
    target = saved(source)
    assert b"Data Block" not in target.read_bytes()
    assert small() not in target.read_bytes()
    assert open_picture(target).note is None
    with tifffile.TiffFile(target) as file, Image.open(target) as opened:
        assert bytes(file.pages[0].tags[34377].value) == resource(0x0404, b"iptc!")
        assert opened.size == image("RGB").size


def webp_credentials(path: Path) -> None:
    image("RGB").save(path, lossless=True, exif=exif())
    chunk = b"C2PA" + struct.pack("<I", len(small())) + small() + b"\0" * (len(small()) % 2)
    body = path.read_bytes()[12:] + chunk
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)


def tiff_credentials(path: Path) -> None:
    tags = [(52545, 7, len(small()), small(), False)]
    tifffile.imwrite(path, np.asarray(image("RGB")), photometric="rgb", extratags=tags, metadata=None)


@pytest.mark.parametrize("make", [webp_credentials, tiff_credentials])
def test_content_credentials_and_the_thumbnail_in_them_are_left_out(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    source = tmp_path / f"source.{make.__name__[:4]}"
    make(source)
    assert small() in source.read_bytes()
    assert open_picture(source).note == CREDENTIALS
    target = saved(source)
    assert small() not in target.read_bytes()
    assert open_picture(target).note is None


def raw_profile(name: str, data: bytes) -> str:
    """As ImageMagick writes it."""
    digits = data.hex()
    rows = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return f"\n{name}\n{len(data):8d}\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("way", ["tEXt", "zTXt", "iTXt", "iTXt packed"])
def test_profiles_in_the_text_of_a_png_lose_their_thumbnails(way: str, tmp_path: Path) -> None:
    turned = exif_without(with_thumbnail())
    resources = resource(0x0404, b"iptc!") + resource(0x040C, bytes(28) + small())
    info = PngImagePlugin.PngInfo()
    for name, data in (("exif", with_thumbnail()), ("APP1", with_thumbnail()), ("8bim", resources)):
        keyword, text = f"Raw profile type {name}", raw_profile(name, data)
        if way.startswith("iTXt"):
            info.add_itxt(keyword, text, zip=way.endswith("packed"))
        else:
            info.add_text(keyword, text, zip=way == "zTXt")
    info.add_text("Comment", "kept")
    source = tmp_path / "source.png"
    image("RGB").save(source, pnginfo=info)
    assert open_picture(source).note == NOTE
    target = saved(source)
    assert open_picture(target).note is None
    with Image.open(target) as after:
        kept = {str(key): str(value) for key, value in after.text.items()}  # type: ignore[attr-defined]
        assert after.getexif()[0x010F] == "Camera"
    assert kept.pop("Comment") == "kept"
    assert kept == {
        "Raw profile type exif": raw_profile("exif", turned),
        "Raw profile type APP1": raw_profile("APP1", turned),
        "Raw profile type 8bim": raw_profile("8bim", resource(0x0404, b"iptc!")),
    }


def test_a_profile_in_text_keeps_its_turn_and_every_byte_if_it_has_no_thumbnail(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", raw_profile("exif", exif(6)), zip=True)
    source = tmp_path / "source.png"
    image("RGB").save(source, pnginfo=info)
    picture = open_picture(source)
    assert (picture.orientation, picture.note) == (6, None)
    assert open_picture(saved(source)).orientation == 6
    assert chunks(saved(source)) == chunks(source)


@pytest.mark.parametrize("text", [b"\0spoilt", b"\0" + zlib.compress(b"\nexif\n 3\n0g"), b""])
def test_a_profile_that_cannot_be_read_is_left_out(text: bytes, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"Raw profile type exif\0" + text)
    source = tmp_path / "source.png"
    image("RGB").save(source, pnginfo=info)
    assert open_picture(source).note == NOTE
    assert b"Raw profile" not in saved(source).read_bytes()
