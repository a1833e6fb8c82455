"""`unlikeness purify`, as it is typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.protect.test_tiles import write

from unlikeness.cli import main


@pytest.mark.parametrize("method", ["jpeg", "vae"])
def test_pictures_are_changed_at_their_own_size(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, output = tmp_path / "in", tmp_path / "out"
    (photos / "trip").mkdir(parents=True)
    sizes = {"a.png": (50, 40), "trip/b.png": (30, 20)}
    for name, size in sizes.items():
        write(photos / name, *size)
    (photos / "c.jpg").write_bytes(b"no picture")
    words = ["purify", str(photos), "-o", str(output), "--method", method, "--device", "cpu", "-q"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "skipped c.jpg" in said.err or "c.jpg: " in said.err
    assert said.out == f"2 purified, 1 skipped; {output}\n"
    for name, size in sizes.items():
        with Image.open(photos / name) as before, Image.open(output / name) as after:
            assert before.size == after.size == size
            assert np.abs(np.asarray(before.convert("RGB")).astype(int) - np.asarray(after)).max() > 0


def test_misuse_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).write_bytes(b"not looked into")
    wrong = {
        "did you mean jpeg": ["--method", "jpg"],
        "--set quality must be at most 100": ["--set", "quality=101"],
        "would both be a.png": [],
    }
    for named, options in wrong.items():
        assert main(["purify", str(tmp_path), "-o", str(tmp_path / "out"), *options]) == 2, named
        assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
