"""Where files are saved; and the source never changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from tests.pictures.makers import changed, image

from unlikeness.errors import PictureError, UsageError
from unlikeness.pictures import Edit, open_picture, save_picture
from unlikeness.pictures.colour import Pixels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.png"
    image("RGB").save(path)
    return path


def test_the_source_is_never_written_over(source: Path, tmp_path: Path) -> None:
    picture = open_picture(source)
    before = source.read_bytes()
    (tmp_path / "soft.png").symlink_to(source)
    os.link(source, tmp_path / "hard.png")
    (tmp_path / "folder").symlink_to(tmp_path)
    for target in (source, tmp_path / "soft.png", tmp_path / "hard.png", tmp_path / "folder" / "source.png"):
        with pytest.raises(UsageError, match="never written over"):
            save_picture(picture, changed(picture), target)
    assert source.read_bytes() == before
    (tmp_path / "again.png").symlink_to(source)
    from_link = open_picture(tmp_path / "again.png")
    with pytest.raises(UsageError, match="never written over"):
        save_picture(from_link, changed(from_link), source)
    assert source.read_bytes() == before


def test_an_older_result_is_replaced_and_nothing_else_is_left(source: Path, tmp_path: Path) -> None:
    picture = open_picture(source)
    (tmp_path / "target.png").write_bytes(b"old")
    save_picture(picture, changed(picture), tmp_path / "target.png")
    assert open_picture(tmp_path / "target.png").size == picture.size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.png", "target.png"]


class _Full:
    """A writer on a full disk."""

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        target.write(b"half a fi")
        raise OSError(28, "No space left on device")


def test_a_failure_leaves_neither_a_part_nor_a_new_file(source: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    picture = open_picture(source)
    broken = replace(picture, raster=replace(picture.raster, writer=_Full()))
    (tmp_path / "target.png").write_bytes(b"old")
    with pytest.raises(PictureError, match=r"target.png: it cannot be written \(No space left"):
        save_picture(broken, changed(broken), tmp_path / "target.png")
    assert (tmp_path / "target.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_folder_is_one_clear_line(source: Path, tmp_path: Path) -> None:
    picture = open_picture(source)
    with pytest.raises(PictureError, match="cannot be written"):
        save_picture(picture, changed(picture), tmp_path / "nowhere" / "target.png")


def test_an_unchanged_picture_of_a_source_that_changed_is_encoded(source: Path, tmp_path: Path) -> None:
    picture = open_picture(source)
    source.write_bytes(b"somebody else was here")
    save_picture(picture, picture.rgb, tmp_path / "target.png")
    assert np.array_equal(open_picture(tmp_path / "target.png").pixels, picture.pixels)


def test_an_edit_belongs_to_its_picture(source: Path, tmp_path: Path) -> None:
    one, other = open_picture(source), open_picture(source)
    with pytest.raises(UsageError, match="make one with Edit"):
        save_picture(one, Edit(other), tmp_path / "target.png")


def test_the_target_gets_ordinary_permissions(source: Path, tmp_path: Path) -> None:
    picture = open_picture(source)
    (tmp_path / "plain").touch()
    save_picture(picture, changed(picture), tmp_path / "target.png")
    assert (tmp_path / "target.png").stat().st_mode == (tmp_path / "plain").stat().st_mode
