"""Files and folders that are complete or not there, also after a kill or a power cut.

They are written under a temporary name beside their own, forced to the disk, and moved into place. A
temporary name is short, and its first half stands for the other name, so that a later run can recognize the
files of a dead run: see `locks`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from unlikeness.endings import undone_by

__all__ = [
    "force", "is_temporary", "mark_of", "present", "present_file", "remove", "replacing", "sync",
    "sync_folder", "temporary", "unfinished", "write_text",
]  # fmt: skip

_TEMPORARY = re.compile(r"\.unlikeness-[0-9a-f]{16}\.part")
_NOT_KNOWN = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}
"""Errors of file systems that cannot force data to the disk."""


def present(path: Path) -> bool:
    """Whether something is there. Unlike `Path.exists`, this takes paths of any length."""
    return os.path.exists(path)  # noqa: PTH110


def present_file(path: Path) -> bool:
    """Whether a file is there, for paths of any length."""
    return os.path.isfile(path)  # noqa: PTH113


def mark_of(name: str) -> str:
    """Eight characters that stand for a file's name."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def temporary(path: Path) -> Path:
    """A new name beside `path` for its data; if `path` is temporary, one with the same first half."""
    mark = path.name[12:20] if is_temporary(path.name) else mark_of(path.name)
    return path.with_name(f".unlikeness-{mark}{secrets.token_hex(4)}.part")


def is_temporary(name: str) -> bool:
    """Whether a file's name comes from `temporary`."""
    return _TEMPORARY.fullmatch(name) is not None


def remove(path: Path) -> None:
    """Remove a file or a folder. What cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A new name beside `path`. What is there at the end of the block, or of the process, is removed."""
    part = temporary(path)
    with undone_by(lambda: remove(part)):
        try:
            yield part
        finally:
            remove(part)


@contextlib.contextmanager
def replacing(path: Path, *, settle: bool = True) -> Iterator[Path]:
    """A new name beside `path`, for a file or folder that replaces `path` if the block ends without error.

    On an error nothing is left under the new name. A folder may replace an empty one. settle: force the new
    name to the disk too; for many files it is enough to do that once for their folder. OSError if writing or
    moving fails.
    """
    with unfinished(path) as part:
        yield part
        sync(part)
        if part.is_dir() and path.is_dir():
            path.rmdir()
        part.replace(path)
        if settle:
            sync_folder(path.parent)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Replace the file `path` by this text in UTF-8, completely or not at all. Creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors=errors)


def sync(path: Path) -> None:
    """Force a file, or everything in a folder, to the disk. OSError if the disk is full or fails."""
    if path.is_dir():
        for root, _, names in os.walk(path):
            for name in names:
                sync_folder(Path(root, name))
            sync_folder(Path(root))
    else:
        sync_folder(path)


def sync_folder(path: Path) -> None:
    """Force a file, or the names in a folder but not what is below them, to disk. OSError as in `sync`."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    try:
        opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:  # a read-only file: its data is forced out later
        return
    try:
        _fsync(opened)
    finally:
        os.close(opened)


def force(opened: IO[Any]) -> None:
    """Force the data of an open file to disk. OSError as in `sync`."""
    opened.flush()
    _fsync(opened.fileno())


def _fsync(descriptor: int) -> None:
    try:
        # Without the file's times, where possible: a line at its end then takes a tenth of the time.
        getattr(os, "fdatasync", os.fsync)(descriptor)
    except OSError as error:
        if error.errno not in _NOT_KNOWN:
            raise
