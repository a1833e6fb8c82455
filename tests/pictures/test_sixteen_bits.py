"""16 bits stay 16 bits, checked by libpng and tifffile, which share no code with the package."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tests.pictures.makers import LOSSLESS, samples

from unlikeness.pictures import Edit, open_picture, save_picture


@pytest.mark.parametrize("name", [name for name in LOSSLESS if "16" in name])
def test_every_level_is_read_and_written(name: str, tmp_path: Path) -> None:
    LOSSLESS[name](tmp_path / "source")
    witness = imagecodecs.png_decode if name.startswith("png") else _tiff
    picture = open_picture(tmp_path / "source")
    original = witness((tmp_path / "source").read_bytes())
    assert picture.depth == 16
    assert np.array_equal(np.squeeze(picture.pixels), original)
    edit = Edit(picture)
    edit.write(0, 0, np.clip(picture.rgb + np.float32(3 / 65535), 0, 1))
    save_picture(picture, edit, tmp_path / "target")
    again = witness((tmp_path / "target").read_bytes())
    assert np.array_equal(np.squeeze(edit.stored), again)
    colours = picture.raster.model.colours
    old = np.atleast_3d(original)[..., :colours].astype(int)
    assert np.array_equal(np.atleast_3d(again)[..., :colours], np.minimum(old + 3, 65535))


def _tiff(data: bytes) -> NDArray[Any]:
    array = tifffile.imread(io.BytesIO(data))
    return np.moveaxis(array, 0, 2) if array.ndim == 3 and array.shape[0] == 3 else array


def test_interlaced_png(tmp_path: Path) -> None:
    """Adam7 by hand: the seven passes of a 16-bit picture, each its own small picture."""
    import struct
    import zlib

    array = samples(3, np.uint16)
    height, width, _ = array.shape
    raw = b""
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    for y, x, dy, dx in passes:
        for row in array[y::dy, x::dx]:
            raw += b"\0" + row.astype(">u2").tobytes()
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 1)), (b"IDAT", zlib.compress(raw))]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in [*parts, (b"IEND", b"")]:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(open_picture(tmp_path / "a.png").pixels, array)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 700, 4), (900, 1, 1), (300, 260, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_filters_invert_on_noise_and_slopes(
    shape: tuple[int, int, int], dtype: type, tmp_path: Path
) -> None:
    noise: NDArray[Any] = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    slope = (np.indices(shape).sum(axis=0) * 37).astype(dtype)
    (tmp_path / "source.png").write_bytes(imagecodecs.png_encode(samples(shape[2], dtype)))
    picture = open_picture(tmp_path / "source.png")
    for array in (noise, slope):
        with (tmp_path / "target.png").open("wb") as file:
            picture.raster.writer.write(np.ascontiguousarray(array[::-1]), file)
        again = imagecodecs.png_decode((tmp_path / "target.png").read_bytes())
        assert np.array_equal(again.reshape(shape), array[::-1])


def test_a_slope_is_packed_as_well_as_pillow_does(tmp_path: Path) -> None:
    """The file is not much larger than Pillow's own."""
    y, x = np.mgrid[:256, :256]
    array = np.stack([x, y, (x + y) // 2], axis=2).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "source.png")
    picture = open_picture(tmp_path / "source.png")
    edit = Edit(picture)
    edit.write(0, 0, picture.window(0, 1, 0, 1) + np.float32(1 / 255))
    save_picture(picture, edit, tmp_path / "target.png")
    assert (tmp_path / "target.png").stat().st_size < 2 * (tmp_path / "source.png").stat().st_size + 200
