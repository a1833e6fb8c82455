"""Which files are taken for pictures, in which order, and what cannot trap the search."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unlikeness.errors import UsageError
from unlikeness.pictures import find_pictures


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_folders_recursively_sorted_without_hidden_and_other_files(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.JPG",
        "a.png",
        "notes.txt",
        ".c.png",
        ".d/e.png",
        "sub/z.heic",
        "sub/deep/y.tiff",
        "x.gif",
    )
    found = find_pictures([tmp_path])
    assert [root for root, _ in found] == [tmp_path] * 5
    names = [str(file.relative_to(tmp_path)) for _, file in found]
    assert names == ["a.png", "b.JPG", "x.gif", "sub/z.heic", "sub/deep/y.tiff"]


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, "picture.dat", ".hidden.png")
    files = [tmp_path / "picture.dat", tmp_path / ".hidden.png"]
    assert find_pictures(files) == [(tmp_path, file) for file in files]


def test_each_file_once_under_the_first_root(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.png", "b.png")
    found = find_pictures([tmp_path, tmp_path / "sub", tmp_path / "sub" / "a.png"])
    assert found == [(tmp_path, tmp_path / "b.png"), (tmp_path, tmp_path / "sub" / "a.png")]


def test_loops_of_links_end_and_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "elsewhere/b.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "elsewhere")
    names = [file.name for _, file in find_pictures([tmp_path / "in"])]
    assert names == ["a.png", "b.png"]


def test_the_output_folder_inside_the_input_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "protected/a.png")
    found = find_pictures([tmp_path], exclude=[tmp_path / "protected", tmp_path / "not there yet"])
    assert [file for _, file in found] == [tmp_path / "a.png"]


def test_pipes_are_no_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert find_pictures([tmp_path]) == []


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone.* does not exist"):
        find_pictures([tmp_path / "gone"])
