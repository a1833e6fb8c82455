"""Finding the pictures in what a user names: files, and folders all the way down."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from unlikeness.errors import UnlikenessError, UsageError

__all__ = ["SUFFIXES", "find_pictures"]

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib",
    ".heic", ".heif", ".hif", ".avif", ".gif",
})  # fmt: skip
"""Names that are taken for pictures in a folder, in any case. GIF is among them so that it is refused with a
reason rather than passed over in silence.
"""


def find_pictures(paths: Sequence[Path], *, exclude: Sequence[Path] = ()) -> list[tuple[Path, Path]]:
    """All pictures below `paths` as (root, file): root is the folder that was named, or the named file's
    folder.

    A file that is named outright is taken whatever its suffix. In folders, entries whose name begins with a
    dot are skipped, and so is everything in the folders of `exclude` (an output folder inside the input,
    say). Links to folders are followed, each real folder once a root, so a loop ends. The order is that of
    `paths`, then by name; a file that is reached twice is given once. Raises UsageError for a path that does
    not exist, UnlikenessError for a folder that cannot be read.
    """
    barred = {_identity(folder) for folder in exclude if folder.is_dir()}
    found: dict[Path, tuple[Path, Path]] = {}
    for path in (Path(p) for p in paths):
        if path.is_dir():
            pairs = [(path, file) for file in _walk(path, barred)]
        elif path.exists():
            pairs = [(path.parent, path)]
        else:
            raise UsageError(f"{path} does not exist; name a picture or a folder of pictures")
        for root, file in pairs:
            found.setdefault(file.parent.resolve() / file.name, (root, file))
    return list(found.values())


def _walk(root: Path, barred: set[tuple[int, int]]) -> Iterator[Path]:
    """Picture files below `root`, sorted by name, a folder's files before its folders; without recursion."""
    seen = set(barred)
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        identity = _identity(folder)
        if identity in seen:
            continue
        seen.add(identity)
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 - names only
            entries = [folder / name for name in names if not name.startswith(".")]
            folders = [entry for entry in entries if entry.is_dir()]
            files = [e for e in entries if e.suffix.lower() in SUFFIXES and e.is_file()]
        except OSError as error:
            raise UnlikenessError(
                f"{folder}: the folder cannot be read ({error.strerror}); change its permissions or leave it"
            ) from error
        yield from files
        waiting.extend(reversed(folders))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
