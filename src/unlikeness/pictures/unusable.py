"""The one exception by which a reader of files says that a file is no picture for us."""

from __future__ import annotations

__all__ = ["Unusable"]


class Unusable(Exception):  # noqa: N818 - says of a file what it is, not what went wrong in us
    """This file cannot be a picture here: reason and remedy, without the file's name."""
