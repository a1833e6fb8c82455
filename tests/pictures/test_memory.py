"""Memory of pictures; and very large ones, whose pixels lie in a file, give the same result."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pictures.makers import ALL, png

from unlikeness.pictures import Edit, memory, open_picture, save_picture
from unlikeness.pictures.formats import base
from unlikeness.pictures.formats import png_pixels as png_format
from unlikeness.pictures.formats.png_pixels import Parts
from unlikeness.pictures.limits import MAX_PIXELS
from unlikeness.pictures.memory import LARGE, Area
from unlikeness.pictures.wire import packed, unpacked
from unlikeness.pictures.worker import decode_file

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells, and lets pages go")

HEIGHT, WIDTH = 3000, 4000
STEPS = f"""
import os, resource, sys
from unlikeness.pictures import Edit, guard, open_picture, save_picture
from unlikeness.pictures.formats import jpeg, tiff

def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

open("/proc/self/clear_refs", "w").write("5")
before = peak()
picture = open_picture(sys.argv[1])
edit = Edit(picture, budget=8)
for y in range(0, {HEIGHT}, 50):
    edit.write(y, 0, 1 - picture.window(y, y + 50, 0, {WIDTH}))
save_picture(picture, edit, sys.argv[2])
edit.let_go()
saved = open_picture(sys.argv[2])
assert saved.size == picture.size
guard.close()
decoder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
print((peak() - before) / {HEIGHT * WIDTH}, decoder / {HEIGHT * WIDTH})
"""


def changed(source: Path, target: Path) -> bytes:
    picture = open_picture(source)
    edit = Edit(picture, budget=8)
    edit.write(0, 0, 1 - picture.rgb)
    save_picture(picture, edit, target)
    return target.read_bytes()


@pytest.mark.parametrize("name", sorted(ALL))
def test_pixels_in_a_file_come_out_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ALL[name](tmp_path / "picture")
    expected = changed(tmp_path / "picture", tmp_path / "one")
    for module in (memory, base):
        monkeypatch.setattr(module, "PAGED", 1)
    monkeypatch.setattr(base, "_BAND_PIXELS", 100)
    monkeypatch.setattr(png_format, "_STREAMED", 0)
    here = decode_file(tmp_path / "picture", MAX_PIXELS).raster.pixels  # not in another process
    assert np.array_equal(here, open_picture(tmp_path / "picture").raster.pixels)
    assert changed(tmp_path / "picture", tmp_path / "other") == expected


@linux
def test_large_arrays_lie_in_a_nameless_file_and_can_be_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.empty((3, 4), np.uint8).base is None
    monkeypatch.setattr(memory, "PAGED", 1 << 20)
    pixels = memory.empty((1024, 1024), np.uint8)
    assert isinstance(pixels.base, np.ndarray)
    assert isinstance(pixels.base.base, memoryview)
    assert isinstance(pixels.base.base.obj, mmap.mmap)
    pixels[:] = np.arange(1024, dtype=np.uint8)
    memory.let_go(pixels[3:].swapaxes(0, 1))
    assert (pixels == np.arange(1024, dtype=np.uint8)).all()
    monkeypatch.setattr(memory, "descriptor", lambda size: None)  # no room on the disk
    assert memory.empty((1024, 1024), np.uint8).base is None


@linux
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_the_peak_for_each_pixel_is_bounded(suffix: str, tmp_path: Path) -> None:
    """Original and edit are 6 bytes a pixel, an image of Pillow's is 4, and so is the decoder itself."""
    slope = np.linspace(0, 255, WIDTH).astype(np.uint8)
    pixels = np.broadcast_to(slope[None, :, None], (HEIGHT, WIDTH, 3))
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"a.{suffix}", quality=90)
    command = [sys.executable, "-c", STEPS, str(tmp_path / f"a.{suffix}"), str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, decoder = map(float, ran.stdout.split())
    assert 6 < ours < 12.5
    assert 3 < decoder < 16


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_that_is_read_where_it_lies_is_the_same(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 30, channels), dtype=np.uint8)
    png(array)(tmp_path / "a.png")
    expected = open_picture(tmp_path / "a.png").pixels
    monkeypatch.setattr(png_format, "_STREAMED", 0)
    assert np.array_equal(decode_file(tmp_path / "a.png", MAX_PIXELS).raster.pixels, expected)
    assert np.array_equal(expected.reshape(array.shape), array)


def test_parts_are_read_as_one_file() -> None:
    file = Parts([b"abc", b"", memoryview(b"defg"), b"h"])
    assert (file.read(2), file.read(3), file.tell(), file.read()) == (b"ab", b"cde", 5, b"fgh")
    assert file.read(5) == b""
    assert file.seek(-2, 2) == 6
    assert file.read(1) == b"g"
    assert file.seek(1) == 1
    assert file.read(4) == b"bcde"


def test_pixels_that_went_to_another_process_go_without_the_collector() -> None:
    gc.disable()
    try:
        there = [Area(LARGE)]
        sent = packed(["picture", there[0].array(np.uint8, (LARGE,))], there)
        received = [Area(LARGE)]
        _, pixels = unpacked(sent.text, memoryview(b""), received)
        assert pixels.nbytes == LARGE
        alive = [weakref.ref(there[0]), weakref.ref(received[0])]
        for area in (*there, *received):
            area.close()
        del area, sent, pixels, there, received
        assert [reference() for reference in alive] == [None, None]
    finally:
        gc.enable()
