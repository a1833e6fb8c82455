"""Which file goes where, decided and checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.pictures import find_pictures
from unlikeness.protect.manifest import NAME, Manifest

__all__ = ["Target", "find_targets"]


@dataclass(frozen=True)
class Target:
    """One file to protect: `name` is its place below the output folder, with forward slashes."""

    source: Path
    path: Path
    name: str


def find_targets(paths: Sequence[Path], output: Path, *, exclude: Sequence[Path] = ()) -> list[Target]:
    """All pictures below `paths`, each with its place below `output`.

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
    found = find_pictures(paths, exclude=[output, *exclude])
    if not found:
        raise UsageError(
            f"no pictures in {', '.join(map(str, paths)) or 'nothing'}; name pictures or folders of them"
        )
    targets: dict[str, Target] = {}
    manifest, inside = Manifest(output, read_only=True), output.resolve()
    for root, source in found:
        real = source.resolve()
        if inside in real.parents and manifest.made(real.relative_to(inside).as_posix()):
            raise UsageError(
                f"{source} is a protected picture of {output / NAME}, not an original; name the originals"
            )
        within = source.relative_to(root)
        if several and root in folders:
            within = Path(root.resolve().name) / within
        name = within.as_posix()
        if name in targets:
            raise UsageError(
                f"{targets[name].source} and {source} would both be written to {output / within}; "
                f"protect them into different output folders"
            )
        targets[name] = Target(source, output / within, name)
    _check_existing(list(targets.values()), output, manifest)
    return list(targets.values())


def _check_existing(targets: Sequence[Target], output: Path, manifest: Manifest) -> None:
    """Nothing that is there already may be lost, unless an earlier run has made it."""
    sources = {os.path.realpath(target.source): target.source for target in targets}
    for target in targets:
        if target.name == NAME:
            raise UsageError(f"{target.source} has the name of the manifest; rename it")
        if os.path.realpath(target.path) in sources:
            raise UsageError(
                f"{target.source} would be written over {sources[os.path.realpath(target.path)]}, "
                f"and originals are never touched; name another output folder"
            )
        if target.path.exists() and not manifest.may_replace(target.name):
            raise UsageError(
                f"{target.path} exists, and by {output / NAME} no earlier run has made it; "
                f"move it away, or name an empty output folder"
            )


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)
