"""Originals and their protected copies: two files, or the pictures of two folders by their relative names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.pictures import kinds
from unlikeness.pictures.finding import find

__all__ = ["SIZE", "Matched", "check_size", "matched"]

SIZE = 512
"""Short side at which a trainer sees pictures [px]."""


def check_size(size: int) -> None:
    """UsageError for a short side that no trainer uses, or that autoencoders cannot divide."""
    if not 64 <= size <= 2048 or size % 64:
        raise UsageError(f"the size is {size}, but it must be a multiple of 64 from 64 to 2048; try {SIZE}")



@dataclass(frozen=True)
class Matched:
    """Pairs of files, and the names without a partner."""

    pairs: tuple[tuple[str, Path, Path], ...]
    """(name, original, protected), sorted by name; at least one."""
    only_original: tuple[str, ...] = ()
    """With the pictures of kinds that cannot be protected (RAW, PSD, ...)."""
    only_protected: tuple[str, ...] = ()

    def sample(self, most: int) -> Matched:
        """At most so many pairs, spread evenly from the first to the last."""
        n = len(self.pairs)
        chosen = sorted({i * (n - 1) // max(most - 1, 1) for i in range(most)}) if most < n else range(n)
        return replace(self, pairs=tuple(self.pairs[i] for i in chosen))


def matched(original: Path, protected: Path) -> Matched:
    """Two files are a pair. In folders, pictures are matched by their name relative to the folder.

    Raises UsageError if a path does not exist, if one is a file and the other a folder, or if a folder pair
    has no name in common.
    """
    for path in (original, protected):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder; give an original and its protected copy")
    if original.is_dir() != protected.is_dir():
        raise UsageError(f"{original} and {protected}: give two files or two folders, not one of each")
    if not original.is_dir():
        return Matched(((original.name, original, protected),))
    (left, unprotected), (right, _) = _by_name(original, protected), _by_name(protected, original)
    both = sorted(left.keys() & right.keys())
    if not both:
        raise UsageError(
            f"{original} and {protected}: no picture has the same name in both; "
            "give the folder that was protected and the folder it was protected into"
        )
    unprotected |= left.keys() - right.keys()
    return Matched(
        tuple((name, left[name], right[name]) for name in both),
        tuple(sorted(unprotected)),
        tuple(sorted(right.keys() - left.keys())),
    )


def _by_name(folder: Path, other: Path) -> tuple[dict[str, Path], set[str]]:
    """Pictures by their name relative to `folder`, without those of `other` if it lies inside; and the names
    of those that cannot be protected.
    """
    exclude = [] if folder.samefile(other) else [other]
    found = find([folder], exclude=exclude)
    others = {file.relative_to(root).as_posix() for root, file, kind in found.others if kind != kinds.VIDEO}
    return {file.relative_to(root).as_posix(): file for root, file in found.pictures}, others
