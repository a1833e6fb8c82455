"""Where results go: looked at before long work, so that nothing is in their way at its end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.files import present

__all__ = ["check_empty", "check_output", "check_place"]


def check_empty(folder: Path) -> None:
    """UsageError unless `folder` does not exist or is an empty folder."""
    if present(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already holds something, which is never overwritten; give another folder")


def check_output(output: Path, checkpoint: Path | None = None) -> None:
    """UsageError for what a long run could not be saved to, or go on from, as far as can be told before it.

    `output` must be new, or an empty folder that another can take the place of, where a folder can be made;
    `checkpoint` a file outside of it, or what is to be there, where a file can be made.
    """
    check_empty(output)
    check_place(output, "--output")
    if output.is_symlink() or os.path.ismount(output) or output.resolve() == Path.cwd():
        raise UsageError(
            f"{output} is a link, a mount or the current folder, in whose place no other can be put; name a "
            "new folder in it as --output"
        )
    if checkpoint is None:
        return
    if output.resolve() in (checkpoint.resolve(), *checkpoint.resolve().parents):
        raise UsageError(
            f"the checkpoint {checkpoint} would be in the way of {output}, which must be empty until the "
            "end; name a file elsewhere"
        )
    check_place(checkpoint, "--checkpoint")


def check_place(path: Path, option: str) -> None:
    """UsageError unless something can be made at `path`, given by `option`."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{path} cannot be made ({error.strerror}); name a shorter {option}") from error
    above = next(folder for folder in path.resolve().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{path} cannot be made, as {above} is no folder; name another {option}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be made, as {above} must not be written to; name another {option}")
