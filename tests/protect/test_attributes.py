"""A protected copy has its original's date, permissions and attributes, as after `cp -p`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.protect.folders import run
from tests.protect.test_tiles import write

from unlikeness.protect.files import attributes
from unlikeness.protect.methods.noise import Noise

PAST = (1_000_000_000_123_456_789, 1_100_000_000_987_654_321)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_date_and_permissions_are_the_originals(tmp_path: Path, noise: Noise, name: str) -> None:
    source = write(tmp_path / name, 40, 30)
    source.chmod(0o4640)
    os.utime(source, ns=PAST)
    assert run(source, tmp_path / "out", noise).protected
    status = (tmp_path / "out" / name).stat()
    assert (status.st_mtime_ns, status.st_mode & 0o7777) == (PAST[1], 0o640)
    assert status.st_atime_ns >= PAST[0]
    # What reads the original is seen by its own file system only.
    assert (source.stat().st_mtime_ns, source.stat().st_mode & 0o7777) == (PAST[1], 0o4640)


def test_a_read_only_original_is_resumed_and_replaced(tmp_path: Path, noise: Noise) -> None:
    source, output = write(tmp_path / "a.png", 40, 30), tmp_path / "out"
    source.chmod(0o444)
    assert run(source, output, noise).protected
    assert (output / "a.png").stat().st_mode & 0o777 == 0o444
    assert run(source, output, noise).before
    before = (output / "a.png").read_bytes()
    assert run(source, output, noise, seed=1).protected
    assert (output / "a.png").read_bytes() != before
    source.chmod(0o644)
    source.write_bytes(b"no picture")
    assert "was removed" in str(run(source, output, noise).skipped[0].reason)
    assert list(output.iterdir()) == [output / "manifest.jsonl"]


def test_a_copy_can_be_read_by_its_owner_whatever_the_original(tmp_path: Path) -> None:
    source, copy = write(tmp_path / "a.png", 8, 8), write(tmp_path / "b.png", 8, 8)
    source.chmod(0o040)
    attributes.copy_attributes(source, source.stat(), copy)
    assert copy.stat().st_mode & 0o777 == 0o440


@pytest.mark.skipif(not hasattr(os, "listxattr"), reason="this system has no extended attributes in Python")
def test_attributes_of_users_are_copied_without_those_that_show_the_picture(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "user.xdg.tags": b"holiday",
        "user.preview": b"size 8\xff\xd8\xff\xe0",
        "security.selinux": b"its own",
        "system.posix_acl_access": b"list",
    }
    taken: dict[str, bytes] = {}

    def put(copy: Path, name: str, value: bytes) -> None:
        if name == "system.posix_acl_access":
            raise OSError(95, "Operation not supported")
        taken[name] = value

    monkeypatch.setattr(os, "listxattr", lambda source: list(given))
    monkeypatch.setattr(os, "getxattr", lambda source, name: given[name])
    monkeypatch.setattr(os, "setxattr", put)
    assert run(write(tmp_path / "a.png", 40, 30), tmp_path / "out", noise).protected
    assert taken == {"user.xdg.tags": b"holiday"}


def test_a_disk_without_times_and_permissions_costs_no_picture(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    assert run(write(tmp_path / "a.png", 40, 30), tmp_path / "out", noise).protected
