"""Which file goes where: decided and checked before anything is written.

Some names are two on one disk and one on another. The file systems exFAT, NTFS and APFS ignore case, APFS
also how letters with accents are composed. Windows drops dots and blanks at the end of a name. Pictures are
copied between such disks. So two names that one of them treats as the same are treated as equal everywhere.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.files import present
from unlikeness.pictures.finding import find
from unlikeness.pictures.kinds import VIDEO
from unlikeness.protect.files.manifest import NAME, Manifest

__all__ = ["WINDOWS", "Target", "find_targets", "key", "reserved"]

WINDOWS = os.name == "nt"

_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789¹²³"
}


@dataclass(frozen=True)
class Target:
    """One file to protect: `name` is its place below the output folder, with forward slashes.

    kind: None for a picture; otherwise the kind of a file that cannot be protected: see `pictures.kinds`.
    """

    source: Path
    path: Path
    name: str
    kind: str | None = None


def find_targets(paths: Sequence[Path], output: Path, *, exclude: Sequence[Path] = ()) -> list[Target]:
    """All pictures below `paths`, each with its place below `output`; after them the files of other kinds.

    A single folder is mirrored as it is. Of several folders, each keeps its own name below `output`, as with
    `cp -r`. Files that are named themselves go to the top. Files in `output` are no input, unless a folder
    below it is named; files that an earlier run made never are, nor files in the folders of `exclude`.

    Raises:
        UsageError: nothing to protect; a picture that an earlier run made; two inputs for one place. Also an
            output that is an input, a file, or holds files of other origin under the names to be written.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"output {output} is a file; name a folder")
    folders = [path for path in paths if path.is_dir()]
    for folder in folders:
        if os.path.realpath(folder) == os.path.realpath(output):
            raise UsageError(
                f"output {output} is the input folder itself, and originals are never touched; "
                f"name another folder"
            )
    several = len({os.path.realpath(folder) for folder in folders}) > 1
    found = find(paths, exclude=[output, *exclude])
    if not found.pictures and all(kind == VIDEO for _, _, kind in found.others):
        raise UsageError(
            f"no pictures in {', '.join(map(str, paths)) or 'nothing'}; name pictures or folders of them"
        )

    def place(root: Path, source: Path, kind: str | None = None) -> Target:
        within = source.relative_to(root)
        if several and root in folders:
            within = Path(root.resolve().name) / within
        return Target(source, output / within, within.as_posix(), kind)

    targets: dict[str, Target] = {}
    manifest, inside = Manifest(output, read_only=True), output.resolve()
    for root, source in found.pictures:
        real = source.resolve()
        if inside in real.parents and manifest.made(real.relative_to(inside).as_posix()):
            raise UsageError(
                f"{source} is a picture that {output / NAME} tells of, not an original; name the originals"
            )
        target = place(root, source)
        other = targets.setdefault(key(target.name), target)
        if other is not target:
            where = (
                f"to {target.path}"
                if other.name == target.name
                else f"as {target.name}, on disks that take these names for one"
            )
            raise UsageError(
                f"{other.source} and {source} would both be written {where}; write them into different "
                "output folders"
            )
    _check_existing(list(targets.values()), output, manifest)
    return [*targets.values(), *(place(*other) for other in found.others)]


def _check_existing(targets: Sequence[Target], output: Path, manifest: Manifest) -> None:
    """UsageError if a file would be lost that no earlier run made."""
    existing = _Existing(output)
    sources = {os.path.realpath(target.source): target.source for target in targets}
    for target in targets:
        if key(target.name) == key(NAME):
            raise UsageError(f"{target.source} has the name of the manifest; rename it")
        if os.path.realpath(target.path) in sources:
            raise UsageError(
                f"{target.source} would be written over {sources[os.path.realpath(target.path)]}, "
                f"and originals are never touched; name another output folder"
            )
        if present(target.path) and not manifest.may_replace(target.name):
            raise UsageError(
                f"{target.path} exists, and by {output / NAME} no earlier run has made it; "
                f"move it away, or name an empty output folder"
            )
        if other := existing.alike(target.name):
            raise UsageError(
                f"{target.path} and {other}, which is there already, are one file on some disks; move that "
                "away, or name an empty output folder"
            )


def key(name: str) -> str:
    """The same key for all names, with forward slashes, that some disk treats as one."""
    return "/".join(_part(part) for part in name.split("/"))


def _part(part: str) -> str:
    # Disks fold single letters: "ß" and "ss" stay two.
    letters = [(c, c.casefold()) for c in unicodedata.normalize("NFD", part)]
    return "".join(folded if len(folded) == 1 else c for c, folded in letters).rstrip(". ") or part


def reserved(name: str) -> bool:
    """Whether a part of a name, with forward slashes, is a device's name on Windows: aux.jpg, CON, ..."""
    return any(part.split(".")[0].rstrip(" ").lower() in _DEVICES for part in name.split("/"))


class _Existing:
    """The files below a folder, found by `key`. Each folder is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def alike(self, name: str) -> Path | None:
        """Another existing file whose name some disk treats as `name`."""
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
            except OSError:  # no folder
                listed = []
            for other in listed:
                names.setdefault(_part(other), []).append(other)
            self._folders[folder] = names
        return self._folders[folder]
