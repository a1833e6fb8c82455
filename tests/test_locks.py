"""One run at a time: locks that live as long as their process, and temporary files of dead runs."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unlikeness import locks
from unlikeness.errors import UnlikenessError
from unlikeness.files import temporary

HOLDER = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from unlikeness import locks
with getattr(locks, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holders() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()


def hold(kind: str, place: Path, holders: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind, str(place)], stdout=subprocess.PIPE, text=True
    )
    holders.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("kind", ["inside", "beside"])
def test_a_second_run_gets_an_error_that_names_the_first_and_a_killed_one_frees_the_place(
    kind: str, tmp_path: Path, holders: list[subprocess.Popen[str]]
) -> None:
    place, lock = tmp_path / "out", getattr(locks, kind)
    first = hold(kind, place, holders)
    with (
        pytest.raises(UnlikenessError, match=rf"another run \(process {first.pid}, since \d\d:\d\d\) writes"),
        lock(place),
    ):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert [name for name in every(tmp_path) if name.endswith(".lock")]  # nobody was there to remove it
    with lock(place):
        pass
    assert not [name for name in every(tmp_path) if name.endswith(".lock")]


def every(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


def test_looking_makes_nothing(tmp_path: Path, holders: list[subprocess.Popen[str]]) -> None:
    locks.check_free(tmp_path / "out")
    assert not every(tmp_path)
    hold("inside", tmp_path / "out", holders)
    with pytest.raises(UnlikenessError, match="name another --output"):
        locks.check_free(tmp_path / "out")


def left_by(folder: Path, **changes: Any) -> Path:
    """A lock file as a dead run leaves it."""
    lock = folder / locks.LOCK
    owner = {"pid": 1, "host": socket.gethostname(), "boot": "of old", "started": "1", "since": time.time()}
    lock.write_text(json.dumps(owner | changes))
    return lock


BOOT = Path("/proc/sys/kernel/random/boot_id")


@pytest.mark.parametrize(
    "changes",
    [
        {},  # before a restart of the machine
        {"boot": "", "pid": 2**22 + 1},  # a process that is gone
        {"pid": "1"},  # of another version
    ],
)
def test_what_a_dead_run_has_left_is_taken_over(tmp_path: Path, changes: dict[str, Any]) -> None:
    lock = left_by(tmp_path, **changes)
    with locks.inside(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"pid": 1e999}', "\0\xff"])
def test_a_lock_file_without_content_is_taken_over(tmp_path: Path, text: str) -> None:
    (tmp_path / locks.LOCK).write_text(text)
    with locks.inside(tmp_path):
        pass
    assert not every(tmp_path)


def test_a_run_of_another_machine_is_left_alone_and_the_file_to_remove_is_named(tmp_path: Path) -> None:
    lock = left_by(tmp_path, host="elsewhere", boot="of elsewhere")
    with pytest.raises(UnlikenessError, match=r"on elsewhere writes into") as caught, locks.inside(tmp_path):
        pass
    assert f"remove {lock}" in str(caught.value)
    lock.unlink()
    with locks.inside(tmp_path):
        pass


@pytest.mark.skipif(not BOOT.exists(), reason="the system does not say which run of the machine this is")
class TestWithoutLocksOfTheFileSystem:
    """Without locks, the content of the file decides."""

    @pytest.fixture(autouse=True)
    def unlocked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import fcntl

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)

    def test_a_living_process_keeps_the_place(self, tmp_path: Path) -> None:
        with (
            locks.inside(tmp_path),
            pytest.raises(UnlikenessError, match=f"process {os.getpid()}"),
            locks.inside(tmp_path),
        ):
            pass
        with locks.inside(tmp_path):
            pass
        assert not every(tmp_path)

    def test_another_process_that_got_its_number_does_not(self, tmp_path: Path) -> None:
        left_by(tmp_path, pid=os.getpid(), boot=BOOT.read_text().strip(), started="1")
        with locks.inside(tmp_path):
            assert json.loads((tmp_path / locks.LOCK).read_text())["started"] != "1"
        assert not every(tmp_path)

    def test_nor_does_one_from_before_a_restart(self, tmp_path: Path) -> None:
        left_by(tmp_path, pid=os.getpid())
        with locks.inside(tmp_path):
            assert json.loads((tmp_path / locks.LOCK).read_text())["boot"] == BOOT.read_text().strip()
        assert not every(tmp_path)


def test_temporary_files_of_dead_runs_are_removed_and_nothing_else(
    tmp_path: Path, holders: list[subprocess.Popen[str]]
) -> None:
    mine, deep = tmp_path / "out", tmp_path / "out" / "deep"
    deep.mkdir(parents=True)
    living = mine / "living"
    hold("inside", living, holders)
    hold("beside", mine / "model", holders)
    stale = [temporary(mine / "a.png"), temporary(deep / "b.png")]
    kept = [
        temporary(living / "c.png"), temporary(mine / "model"), mine / ".unlikeness-notes.part",
        mine / "x.part", mine / ".unlikeness-0123456789abcdef.part.png",
    ]  # fmt: skip
    for file in [*stale, *kept]:
        file.write_bytes(b"half")
    folder = temporary(mine / "y")
    folder.mkdir()
    with locks.inside(mine):
        assert not [file for file in stale if file.exists()]
        assert not [file for file in [*kept, folder] if not file.exists()]


def test_what_a_dead_run_has_half_written_beside_its_name_is_removed(tmp_path: Path) -> None:
    model, other = temporary(tmp_path / "model"), temporary(tmp_path / "other")
    within = temporary(model)  # a folder is saved into a folder that is itself not finished
    for folder in (model, within, other):
        folder.mkdir()
        (folder / "weights").write_bytes(b"half")
    with locks.beside(tmp_path / "model"):
        assert other.exists()
        assert not model.exists()
        assert not within.exists()


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnlikenessError, match="cannot be written"), locks.inside(tmp_path / "file" / "out"):
        pass
    with pytest.raises(UnlikenessError, match="cannot be written"), locks.beside(tmp_path / "file" / "out"):
        pass


def test_a_full_disk_is_no_reason_to_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with locks.inside(tmp_path), pytest.raises(UnlikenessError, match="another run"), locks.inside(tmp_path):
        pass


def test_folders_that_were_made_for_nothing_are_removed(tmp_path: Path) -> None:
    with locks.inside(tmp_path / "a" / "b"), locks.beside(tmp_path / "c" / "model"):
        pass
    assert not every(tmp_path)
    with locks.inside(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "picture").touch()
    assert sorted(every(tmp_path)) == ["a", "b", "picture"]
