"""Files that cannot be used get one clear line, and nothing else."""

from __future__ import annotations

import builtins
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.pictures.makers import ALL, image, samples

from unlikeness.errors import PictureError, UsageError
from unlikeness.pictures import open_picture
from unlikeness.pictures.limits import MAX_PIXELS, Unusable
from unlikeness.pictures.worker import decode_file


def refusal(path: Path, **options: Any) -> str:
    """The line with which `path` is refused; checks that it is one line, names the file, and is alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureError) as caught:
            open_picture(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    assert "; " in line
    return line


def png_header(width: int, height: int) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, part in ((b"IHDR", body), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")):
        data += struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
    return data


def test_what_is_no_picture(tmp_path: Path) -> None:
    for name, data, said in (
        ("empty.jpg", b"", "empty"),
        ("text.png", b"hello, this is text", "no JPEG, PNG"),
        ("page.jpg", b"<!DOCTYPE html><html>", "no JPEG, PNG"),
        ("short.png", b"\x89PNG\r\n\x1a\n", "truncated"),
        ("zero.png", png_header(0, 5), "0 × 5"),
        ("a.gif", b"GIF89a" + bytes(50), "GIF"),
    ):
        (tmp_path / name).write_bytes(data)
        assert said in refusal(tmp_path / name)
    assert "cannot be read" in refusal(tmp_path / "missing.png")
    (tmp_path / "folder.png").mkdir()
    assert "not a file" in refusal(tmp_path / "folder.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a file" in refusal(tmp_path / "pipe.png")


@pytest.mark.parametrize("name", ALL)
def test_half_a_file(name: str, tmp_path: Path) -> None:
    ALL[name](tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    refusal(tmp_path / "half")


@pytest.mark.parametrize("name", ALL)
def test_the_bound_is_checked_for_every_format(name: str, tmp_path: Path) -> None:
    ALL[name](tmp_path / "picture")
    assert "over the bound of 700" in refusal(tmp_path / "picture", max_pixels=700)
    assert open_picture(tmp_path / "picture", max_pixels=714).size in ((34, 21), (21, 34))


def test_the_bound_is_checked_before_decoding(tmp_path: Path) -> None:
    """A header that promises 4 gigapixels costs nothing; nor does one beyond what Pillow allows."""
    (tmp_path / "bomb.png").write_bytes(png_header(65000, 65000))
    assert "over the bound" in refusal(tmp_path / "bomb.png")
    image("RGB").save(tmp_path / "bomb.jpg")
    data = bytearray((tmp_path / "bomb.jpg").read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "bomb.jpg").write_bytes(data)
    assert "over the bound" in refusal(tmp_path / "bomb.jpg")
    image("RGB").save(tmp_path / "bomb.bmp")
    data = bytearray((tmp_path / "bomb.bmp").read_bytes())
    data[18:26] = struct.pack("<ii", 65000, 65000)
    (tmp_path / "bomb.bmp").write_bytes(data)
    assert "over the bound" in refusal(tmp_path / "bomb.bmp")


@pytest.mark.parametrize("name", ["tiff-16-grey", "tiff-grey"])
def test_what_pillow_takes_for_a_bomb(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Pillow has a bound of its own that is hit first; its warning, at half of it, is not shown."""
    ALL[name](tmp_path / "picture")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Unusable, match="larger than Pillow unpacks"):
        decode_file(tmp_path / "picture", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_file(tmp_path / "picture", 1000)


def test_a_bound_that_bounds_nothing_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_pixels"):
        open_picture(tmp_path / "any.png", max_pixels=0)


@pytest.mark.parametrize(("name", "file_format"), [("a.png", "PNG"), ("a.webp", "WEBP"), ("a.avif", "AVIF")])
def test_animations(name: str, file_format: str, tmp_path: Path) -> None:
    image("RGB").save(
        tmp_path / name,
        file_format,
        save_all=True,
        append_images=[image("RGB", 1), image("RGB", 2)],
        duration=50,
    )
    assert "animated" in refusal(tmp_path / name)


def test_pages(tmp_path: Path) -> None:
    image("RGB").save(tmp_path / "a.tif", save_all=True, append_images=[image("RGB", 1)])
    assert "several pages" in refusal(tmp_path / "a.tif")


def test_a_raw_file_is_not_taken_for_its_preview(tmp_path: Path) -> None:
    """As in DNG and NEF: a first page marked as small, the photograph behind it."""
    tifffile.imwrite(tmp_path / "a.dng", samples(3), photometric="rgb", subfiletype=1, metadata=None)
    assert "only a preview" in refusal(tmp_path / "a.dng")


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.int16])
def test_samples_that_cannot_be_kept(dtype: type, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples(1)[..., 0].astype(dtype), metadata=None)
    assert "float, signed or over 16 bits" in refusal(tmp_path / "a.tif")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ALL["heic"](tmp_path / "a.heic")
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pillow_heif":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "pillow_heif")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Unusable, match=r'pip install "unlikeness\[heif\]"'):
        decode_file(tmp_path / "a.heic", 1000)


def test_names_with_line_breaks_stay_one_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines\x1b.png"
    path.write_bytes(b"nothing")
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ALL)
def test_no_file_stays_open(name: str, tmp_path: Path) -> None:
    ALL[name](tmp_path / "picture")
    (tmp_path / "half").write_bytes((tmp_path / "picture").read_bytes()[:60])
    open_picture(tmp_path / "picture")  # the process that decodes is there now
    before = len(list(Path("/proc/self/fd").iterdir()))
    picture = open_picture(tmp_path / "picture")
    refusal(tmp_path / "half")
    assert picture.size
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_pillow_opens_what_the_default_bound_lets_through() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert 2 * Image.MAX_IMAGE_PIXELS >= MAX_PIXELS >= 16320 * 12240
