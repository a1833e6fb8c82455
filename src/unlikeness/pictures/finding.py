"""Finding the pictures in what a user names: files, and folders all the way down."""

from __future__ import annotations

import errno
import mimetypes
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.files import present, present_file
from unlikeness.pictures.kinds import HEAD, SUFFIXES, SUPPORTED, UNSUPPORTED, announced

__all__ = ["Found", "check_pictures", "find", "find_pictures"]

_OF_SYSTEMS = frozenset({
    "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "__macosx",
    "lost+found",
})  # fmt: skip
"""Folders of network drives and systems, in lower case: their previews, and deleted files."""
_TYPES = mimetypes.MimeTypes()
"""Python's own table of suffixes, not the machine's."""


@dataclass
class Found:
    """What lies below some paths."""

    pictures: list[tuple[Path, Path]] = field(default_factory=list)
    """(root, file): root is the named folder, or the folder of the named file. At the end, folders whose path
    is too long for the system: opening them gives the error.
    """
    others: list[tuple[Path, Path, str]] = field(default_factory=list)
    """(root, file, kind) of pictures that cannot be protected, and of videos: see `kinds.UNSUPPORTED`."""


def find_pictures(paths: Sequence[Path], *, exclude: Sequence[Path] = ()) -> list[tuple[Path, Path]]:
    """(root, file) of the pictures below `paths` that may be protected: see `find`."""
    return find(paths, exclude=exclude).pictures


def check_pictures(path: Path | None) -> None:
    """Check that there are pictures below `path`. None, for an option that was not given, passes.

    UsageError if the path does not exist; UnlikenessError if it holds no pictures.
    """
    if path is not None and not find_pictures([path]):
        raise UnlikenessError(f"{path} holds no picture that can be read; give a folder with pictures")


def find(paths: Sequence[Path], *, exclude: Sequence[Path] = ()) -> Found:
    """Everything below `paths` that looks like a picture.

    In folders, the suffix of a file decides, and its first bytes where the suffix is unknown. A file that is
    named outright counts as a picture unless its kind cannot be protected. Entries whose name begins with a
    dot, folders of systems and the folders of `exclude` (such as an output folder) are skipped.

    Links to folders are followed after all real folders, so that a file is found at its real place where that
    is below `paths`. Each real folder is read once a root, so a loop ends. The order is that of `paths`, then
    by name. A file that is reached twice is given once.

    UsageError for a path that does not exist; UnlikenessError for a folder that cannot be read.
    """
    roots = [Path(path) for path in paths]
    for root in roots:
        if not present(root):
            raise UsageError(f"{root} does not exist; name a picture or a folder of pictures")
    folders = [root.is_dir() for root in roots]
    barred = {_identity(folder) for folder in exclude if folder.is_dir()}
    seen = [set(barred) for _ in roots]
    links: list[list[Path]] = [[] for _ in roots]
    deep: list[list[Path]] = [[] for _ in roots]
    taken: set[Path] = set()
    files = [
        _new(_walk(root, seen[i], links[i], deep[i]) if folders[i] else [root], taken)
        for i, root in enumerate(roots)
    ]
    for i in range(len(roots)):
        for link in links[i]:  # which grows by the links that are behind links
            files[i] += _new(_walk(link, seen[i], links[i], deep[i]), taken)
    found = Found()
    named = {root for root, folder in zip(roots, folders, strict=True) if not folder}
    for root, folder, below in zip(roots, folders, files, strict=True):
        for file in below:
            _add(found, root if folder else root.parent, file, outright=file in named)
    found.pictures += [(roots[i], folder) for i in range(len(roots)) for folder in deep[i]]
    return found


def _add(found: Found, root: Path, file: Path, *, outright: bool) -> None:
    """Judge one file."""
    suffix = file.suffix.lower()
    kind = None if suffix in SUFFIXES else _kind(file, suffix)
    if suffix in SUFFIXES or kind in SUPPORTED:
        found.pictures.append((root, file))
    elif kind is not None:
        found.others.append((root, file, kind))
    elif outright:
        found.pictures.append((root, file))


def _kind(file: Path, suffix: str) -> str | None:
    """What a file is by its first bytes, or else by its name; None if it is certainly no picture."""
    named = UNSUPPORTED.get(suffix)
    other = _TYPES.guess_type(f"x{suffix}")[0] or "image/"
    if not present_file(file) or (
        named is None and not other.startswith(("image/", "application/octet-stream"))
    ):
        return named
    try:
        with file.open("rb", buffering=0) as opened:
            kind = announced(opened.read(HEAD))
    except OSError:
        return named
    return kind if kind in SUPPORTED else named or kind


def _new(files: Iterable[Path], taken: set[Path]) -> list[Path]:
    """The files whose real places are not in `taken`, where they are added."""
    new: list[Path] = []
    real: dict[Path, Path] = {}
    for file in files:
        if file.parent not in real:
            real[file.parent] = file.parent.resolve()
        place = real[file.parent] / file.name
        if place not in taken:
            taken.add(place)
            new.append(file)
    return new


def _walk(
    root: Path, seen: set[tuple[int, int]], links: list[Path], unreachable: list[Path]
) -> Iterator[Path]:
    """Files below `root`, sorted by name, a folder's files before its folders; without recursion.

    Links to folders go into `links`, folders whose path is too long for the system into `unreachable`.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            identity = _identity(folder)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            unreachable.append(folder)
            continue
        if identity in seen:
            continue
        seen.add(identity)
        folders: list[Path] = []
        files: list[Path] = []
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
            for entry in ordered:
                if entry.name.startswith("."):
                    continue
                path = folder / entry.name
                if not (path if entry.is_symlink() else entry).is_dir():
                    if (path if entry.is_symlink() else entry).is_file():
                        files.append(path)
                elif entry.name.lower() not in _OF_SYSTEMS:
                    (links if entry.is_symlink() else folders).append(path)
        except OSError as error:
            raise UnlikenessError(
                f"{folder}: the folder cannot be read ({error.strerror}); change its permissions or leave it"
            ) from error
        yield from files
        waiting.extend(reversed(folders))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
