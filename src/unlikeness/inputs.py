"""What a command reads: looked at before torch is imported, so that a wrong path is told at once."""

from __future__ import annotations

from pathlib import Path

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.pictures.finding import find_pictures

__all__ = ["check_file", "check_pictures"]


def check_pictures(path: Path | None) -> None:
    """Whether there are pictures below `path`. None, for an option that was not given, passes.

    UsageError if it does not exist; UnlikenessError if it holds none.
    """
    if path is not None and not find_pictures([path]):
        raise UnlikenessError(f"{path} holds no picture that can be read; give a folder with pictures")


def check_file(path: Path | None, option: str) -> None:
    """UsageError unless `path`, given by `option`, is a file. None passes."""
    if path is not None and not path.is_file():
        raise UsageError(f"{option} {path} is no file; give one that is there")
