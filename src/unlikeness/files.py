"""Files and folders that are whole or not there, also after a kill or a power cut.

They are written under a temporary name beside their own, forced to the disk, and moved into place. A
temporary name is short however long the other one is, and says by its first half whose it is, so that a later
run knows which of them a dead run has left: see `locks`.
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
    "force", "is_temporary", "mark_of", "present", "present_file", "replacing", "sync", "sync_folder",
    "temporary", "unfinished", "write_text",
]  # fmt: skip

_TEMPORARY = re.compile(r"\.unlikeness-[0-9a-f]{16}\.part")

_NOT_KNOWN = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}
"""What file systems answer that cannot be told to write at once."""


def present(path: Path) -> bool:
    """Whether something is there; unlike `Path.exists`, also of a path that is longer than any can be."""
    return os.path.exists(path)  # noqa: PTH110


def present_file(path: Path) -> bool:
    """Whether a file is there, likewise."""
    return os.path.isfile(path)  # noqa: PTH113


def mark_of(name: str) -> str:
    """Eight signs that stand for a file's name."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def temporary(path: Path) -> Path:
    """A new name beside `path`, for what is to become it; of a temporary one, with the same first half."""
    mark = path.name[12:20] if is_temporary(path.name) else mark_of(path.name)
    return path.with_name(f".unlikeness-{mark}{secrets.token_hex(4)}.part")


def is_temporary(name: str) -> bool:
    """Whether a file's name is one of `temporary`'s."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A new name beside `path`; what is still there under it at the end of the block, or of the process, is
    removed."""
    part = temporary(path)

    def remove() -> None:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                part.unlink()

    with undone_by(remove):
        try:
            yield part
        finally:
            remove()


@contextlib.contextmanager
def replacing(path: Path, *, settle: bool = True) -> Iterator[Path]:
    """A new name beside `path`, for a file or folder that takes its place when the block ends without error.

    Nothing is left under the new name otherwise. A folder may replace an empty one. settle: force out the
    change of name too; where many files are written it is enough to do that for their folder at the end.
    OSError if it cannot be written or moved.
    """
    with unfinished(path) as part:
        yield part
        sync(part)
        if part.is_dir() and path.is_dir():
            path.rmdir()
        part.replace(path)
        if settle:
            sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the file `path` by this text in UTF-8, whole or not at all. The folder is made if need be.

    A character that is not Unicode (of a file name in another encoding) becomes "?".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


def sync(path: Path) -> None:
    """Force a file, or everything in a folder, to the disk. OSError if the disk is full or fails."""
    if path.is_dir():
        for root, _, names in os.walk(path):
            for name in names:
                _sync_one(Path(root, name))
            _sync_one(Path(root))
    else:
        _sync_one(path)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, not what is under them. OSError as for `sync`."""
    _sync_one(folder)


def force(opened: IO[Any]) -> None:
    """Force what was written to an open file to the disk. OSError as for `sync`."""
    opened.flush()
    _fsync(opened.fileno())


def _sync_one(path: Path) -> None:
    folder = path.is_dir()
    if folder and os.name == "nt":  # whose folders cannot be opened
        return
    try:
        opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:  # a file that was made read-only: its bytes are forced out later
        return
    try:
        _fsync(opened)
    finally:
        os.close(opened)


def _fsync(descriptor: int) -> None:
    try:
        # Without the file's times, where that can be chosen: a line at its end takes a tenth of the time.
        getattr(os, "fdatasync", os.fsync)(descriptor)
    except OSError as error:
        if error.errno not in _NOT_KNOWN:
            raise
