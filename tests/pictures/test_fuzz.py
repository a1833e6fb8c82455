"""Whatever bytes come, the answer is a picture or a PictureError."""

from __future__ import annotations

import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.pictures.makers import ALL, changed

from unlikeness.errors import PictureError
from unlikeness.pictures import open_picture, save_picture

MAGIC = [
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x20\0\0\0WEBP",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0",
    b"BM",
    b"GIF89a",
    b"\0\0\0\x18ftypheic",
    b"\0\0\0\x18ftypavif",
]


@cache
def valid(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        ALL[name](Path(folder) / "picture")
        return (Path(folder) / "picture").read_bytes()


def survive(data: bytes) -> None:
    """Open `data` as a picture; what opens must also be writable, and give what it says."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder) / "picture"
        path.write_bytes(data)
        try:
            picture = open_picture(path, max_pixels=100_000)
        except PictureError as error:
            line = str(error)
        else:
            line = ""
        if line:
            assert "\n" not in line
            return
        rgb = picture.rgb
        assert rgb.shape == (*picture.size[::-1], 3)
        assert rgb.min() >= 0
        assert rgb.max() <= 1
        save_picture(picture, changed(picture), Path(folder) / "target", budget=8)
        again = open_picture(Path(folder) / "target")
        assert again.size == picture.size
        if picture.lossless:
            assert np.abs(again.rgb - rgb).max() <= 8 / 255 + 1e-5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(magic=st.sampled_from([b"", *MAGIC]), rest=st.binary(max_size=300))
@example(magic=b"BM", rest=b"")
def test_random_bytes(magic: bytes, rest: bytes) -> None:
    survive(magic + rest)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(ALL)), share=st.floats(0, 1))
def test_truncated_files(name: str, share: float) -> None:
    data = valid(name)
    survive(data[: int(share * len(data))])


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(ALL)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    head=st.booleans(),
)
def test_flipped_bytes(name: str, flips: list[tuple[float, int]], head: bool) -> None:
    data = bytearray(valid(name))
    span = min(len(data), 200) if head else len(data)
    for share, value in flips:
        data[int(share * span)] = value
    survive(bytes(data))
