"""Which file goes where, decided and checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.files import present
from unlikeness.pictures.finding import find
from unlikeness.pictures.kinds import VIDEO
from unlikeness.protect.files.manifest import NAME, Manifest
from unlikeness.protect.files.names import Existing, key

__all__ = ["Target", "find_targets"]


@dataclass(frozen=True)
class Target:
    """One file to protect: `name` is its place below the output folder, with forward slashes.

    kind: None; or that of a file that is only told of, since it cannot be protected: see `pictures.kinds`.
    """

    source: Path
    path: Path
    name: str
    kind: str | None = None


def find_targets(paths: Sequence[Path], output: Path, *, exclude: Sequence[Path] = ()) -> list[Target]:
    """All pictures below `paths`, each with its place below `output`; behind them, files of other kinds.

    One folder is mirrored as it is; of several, each keeps its own name below `output`, as with `cp -r`.
    Files that are named outright go to the top. What lies in `output` is no input, unless a
    folder below it is named, and what an earlier run has made never is; nor what lies in
    the folders of `exclude`.

    Raises:
        UsageError: nothing to protect; a picture that an earlier run has made there; an output that is an
            input, a file, or holds files of other origin under the names that would be written; two inputs
            that would be written to one place.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"output {output} is a file; name a folder")
    folders = [path for path in paths if path.is_dir()]
    for folder in folders:
        if _same(folder, output):
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
                f"{source} is a protected picture of {output / NAME}, not an original; name the originals"
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
                f"{other.source} and {source} would both be written {where}; protect them into different "
                "output folders"
            )
    _check_existing(list(targets.values()), output, manifest)
    return [*targets.values(), *(place(*other) for other in found.others)]


def _check_existing(targets: Sequence[Target], output: Path, manifest: Manifest) -> None:
    """Nothing that is there already may be lost, unless an earlier run has made it."""
    existing = Existing(output)
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


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)
