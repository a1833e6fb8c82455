"""Files that are complete or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from unlikeness import files
from unlikeness.endings import undo_all
from unlikeness.files import replacing, temporary, write_text


def test_a_file_appears_whole_and_was_forced_to_the_disk_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    real, move = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        happened.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        real(descriptor)

    def replace(self: Path, target: Path) -> Path:
        happened.append("moved")
        return move(self, target)

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, fsync, raising=False)
    monkeypatch.setattr(Path, "replace", replace)
    write_text(tmp_path / "deep" / "a.txt", "new")
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"
    assert happened == ["file", "moved", "folder"] or not Path("/proc").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with replacing(tmp_path / "model") as part:
        (part / "unet").mkdir(parents=True)
        (part / "unet" / "weights").write_bytes(b"w")
    assert (tmp_path / "model" / "unet" / "weights").read_bytes() == b"w"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_after_an_error_or_an_end_at_once_the_old_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def half() -> None:
        with replacing(tmp_path / "a") as part:
            part.write_text("ne")
            raise ValueError

    with pytest.raises(ValueError):
        half()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]

    def ended() -> None:
        with replacing(tmp_path / "a") as part:
            part.mkdir()
            (part / "weights").write_text("half")
            undo_all()

    with pytest.raises(FileNotFoundError):
        ended()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["a", "n" * 255, "ü" * 127])
def test_a_temporary_name_is_short_however_long_the_other_is(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "whole")
    assert (tmp_path / name).read_text() == "whole"
    assert files.is_temporary(temporary(tmp_path / name).name)
    twice = temporary(temporary(tmp_path / name)).name
    assert twice[:20] == temporary(tmp_path / name).name[:20]


def test_a_file_system_without_sync_is_no_error_and_a_full_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = errno.EINVAL

    def fsync(_: int) -> None:
        raise OSError(answer, os.strerror(answer))

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, fsync, raising=False)
    write_text(tmp_path / "a", "whole")
    answer = errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "whole"
