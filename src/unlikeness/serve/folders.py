"""The pictures of a job: strangers' names and zips, held inside one folder and within bounds."""

from __future__ import annotations

import errno
import io
import os
import struct
import time
import zipfile
import zlib
from pathlib import Path

from unlikeness.files import replacing
from unlikeness.locks import is_own
from unlikeness.pictures.finding import find
from unlikeness.protect.files.targets import WINDOWS, key, reserved
from unlikeness.serve.faults import Fault

__all__ = ["MOST_FILES", "Folder", "pack", "size_of"]

MOST_FILES = 1000
"""Files of a job."""
_MOST_FOLDERS = 16
"""Folders one inside the other."""
_MOST_NAME = 255
"""Bytes of a file's or folder's name, and a quarter of those of a whole path."""
_MOST_LIST = 1 << 20
"""Bytes of a zip's own list of its files, which is read whole."""
_PART = 64 << 10
_FULL = {errno.ENOSPC, errno.EDQUOT}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others may take gigabytes of memory to unpack."""


class Folder:
    """A folder that takes files under the names that a stranger gave them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken: set[str] = set()

    def place(self, name: str) -> Path:
        """Where the file of this name goes; its folder is made.

        Fault 400 for a name that leads out of the folder, that no disk takes, or that another file has.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        plain = "/".join(parts)
        if not parts or ".." in parts or any(ord(letter) < 32 for letter in plain):
            raise _bad(name, "it names no place inside the job")
        if len(parts) > _MOST_FOLDERS or len(os.fsencode(plain)) > 4 * _MOST_NAME:
            raise _bad(name, "it is too long")
        if any(len(os.fsencode(part)) > _MOST_NAME for part in parts):
            raise _bad(name, "it is too long")
        if WINDOWS and (reserved(plain) or set(plain) & set('<>:"|?*')):
            raise _bad(name, "Windows does not take it")
        if key(plain) in self._taken:
            raise _bad(name, "another file has it")
        if len(self._taken) == MOST_FILES:
            raise Fault(413, f"these are more than {MOST_FILES} files; send the rest as another job")
        self._taken.add(key(plain))
        target = self.path / plain
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise _bad(name, "another file has the name of its folder") from error
        return target

    def unpack(self, file: Path, most: int) -> None:
        """Unpack the zip `file` into the folder. Hidden files and those of systems are left out.

        most: bytes of all unpacked files together. Times are bounded by that and by the zip's size.

        Fault 400 for names as in `place`; 413 for too many files or bytes; 422 for no zip, a damaged or an
        encrypted one; 503 if the disk is full.
        """
        left = most
        try:
            with _Bounded(file) as opened, zipfile.ZipFile(opened) as packed:
                for one in packed.infolist():
                    if one.is_dir() or _of_system(one.filename):
                        continue
                    if one.flag_bits & 1:
                        raise Fault(422, "the zip is encrypted; send one without a password")
                    if one.compress_type not in _METHODS:
                        raise Fault(422, "the zip is packed in an unusual way; use plain zip (Deflate)")
                    target = self.place(one.filename)
                    with packed.open(one) as source, target.open("xb") as copied:
                        while part := source.read(_PART):
                            left -= len(part)
                            if left < 0:
                                raise Fault(413, f"the zip unpacks to more than {most:,} bytes; send less")
                            copied.write(part)
                    then = time.mktime((*one.date_time, 0, 0, -1))
                    os.utime(target, (then, then))
        except OSError as error:
            if error.errno in _FULL:
                raise Fault(503, f"the zip cannot be unpacked ({error.strerror}); try again later") from error
            raise _damaged() from error
        except (
            zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, ValueError, EOFError,
            NotImplementedError, RuntimeError, OverflowError,
        ) as error:  # fmt: skip
            raise _damaged() from error

    def check(self) -> int:
        """The number of files that look like pictures. Fault 422 if there are none."""
        found = find([self.path])
        if not found.pictures:
            raise Fault(422, "no picture is among these files; send JPEG, PNG, WebP, TIFF, HEIC or AVIF")
        return len(found.pictures)


class _Bounded(io.FileIO):
    """A file that is never read whole: a zip may claim a list of gigabytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > _MOST_LIST:
            raise zipfile.BadZipFile("a list of so many bytes")
        return super().read(size) or b""


def pack(folder: Path, target: Path) -> None:
    """Write the files of a folder into the new zip `target`, stored as they are. OSError if that fails."""
    with replacing(target) as part, zipfile.ZipFile(part, "w", strict_timestamps=False) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not is_own(path.name):
                packed.write(path, path.relative_to(folder).as_posix())


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 - it is called often
            except OSError:  # it has just been renamed
                continue
    return total


def _of_system(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return "__MACOSX" in parts or any(part.startswith(".") and part.strip(".") for part in parts)


def _bad(name: str, reason: str) -> Fault:
    return Fault(400, f"the name {name[:80]} cannot be used: {reason}; rename the file")


def _damaged() -> Fault:
    return Fault(422, "the zip cannot be read; pack the pictures again, in less than 4 GiB, or send a form")
