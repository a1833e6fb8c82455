"""The errors that a user may see.

Each message is one sentence that names the file or the setting, the reason and the remedy. The command line
prints it as one line on stderr and exits with the class's `exit_code`.
"""

from __future__ import annotations

__all__ = ["NotFiniteError", "PictureError", "UnlikenessError", "UsageError", "one_line"]


def one_line(text: str) -> str:
    """`text` as one line for any terminal. Characters that cannot be printed become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class UnlikenessError(Exception):
    """The work cannot be done: a missing model, a full disk, a training that diverged. Exit status 1."""

    exit_code: int = 1


class UsageError(UnlikenessError, ValueError):
    """A setting or an argument is wrong. Exit status 2."""

    exit_code: int = 2


class PictureError(UnlikenessError):
    """A file cannot be used as a picture. The other files of a folder can."""


class NotFiniteError(UnlikenessError):
    """A training diverged, or a model's output is infinite or not a number. Other work can go on."""
