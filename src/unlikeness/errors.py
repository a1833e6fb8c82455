"""The errors that a user may see.

Each message is one clear sentence that names the file or the setting, the reason and the remedy. The command
line prints it on one line of stderr and exits with the class's `exit_code`; nothing else of the library's
own making is meant to reach a user.
"""

from __future__ import annotations

__all__ = ["NotFiniteError", "PictureError", "UnlikenessError", "UsageError", "one_line"]


def one_line(text: str) -> str:
    """`text` as one line that any terminal can show: what is not printable becomes a space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class UnlikenessError(Exception):
    """The work cannot be done: a missing model, a full disk, a training that diverged. Exit status 1."""

    exit_code: int = 1


class UsageError(UnlikenessError, ValueError):
    """A setting or an argument is wrong, and asking differently would help. Exit status 2."""

    exit_code: int = 2


class PictureError(UnlikenessError):
    """One file cannot be used as a picture; the rest of a folder can go on without it."""


class NotFiniteError(UnlikenessError):
    """A training diverged, or a model's output is infinite or no number. Other work may go on without it."""
