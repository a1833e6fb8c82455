"""Names that are two on one disk and one on another.

exFAT, NTFS and APFS ignore case, APFS also how letters with accents are composed, and Windows drops dots and
blanks at the end of a name. Pictures are copied between such disks, so two names that one of them takes for
one are treated as equal on all.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

__all__ = ["WINDOWS", "Existing", "key", "reserved"]

WINDOWS = os.name == "nt"

_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789¹²³"
}


def key(name: str) -> str:
    """The same for all names, with forward slashes, that some disk takes for one."""
    return "/".join(_part(part) for part in name.split("/"))


def _part(part: str) -> str:
    # Disks fold letters one by one: "ß" and "ss" stay two.
    letters = [(c, c.casefold()) for c in unicodedata.normalize("NFD", part)]
    return "".join(folded if len(folded) == 1 else c for c, folded in letters).rstrip(". ") or part


def reserved(name: str) -> bool:
    """Whether a part of a name, with forward slashes, is a device's on Windows: aux.jpg, CON, ..."""
    return any(part.split(".")[0].rstrip(" ").lower() in _DEVICES for part in name.split("/"))


class Existing:
    """What lies below a folder, looked up by `key`; each folder is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def alike(self, name: str) -> Path | None:
        """Another file that is there under a name that some disk takes for `name`; None if there is none."""
        own = self._root / name
        spelt = [self._root]
        for part in name.split("/"):
            wanted = _part(part)
            spelt = [folder / other for folder in spelt for other in self._names(folder).get(wanted, [])]
        others = (path for path in spelt if path != own)
        return next((path for path in others if not (own.exists() and path.samefile(own))), None)

    def _names(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._folders:
            names: dict[str, list[str]] = {}
            try:
                listed = os.listdir(folder)  # noqa: PTH208 - names only
            except OSError:  # none, or a file
                listed = []
            for other in listed:
                names.setdefault(_part(other), []).append(other)
            self._folders[folder] = names
        return self._folders[folder]
