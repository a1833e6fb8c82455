"""Check the paths that a user gives, before long work begins and before torch is imported."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.files import present

__all__ = ["check_empty", "check_exists", "check_output", "check_place"]


def check_exists(path: Path | None, option: str) -> None:
    """UsageError unless `path`, given by `option`, is a file. None, for an option not given, passes."""
    if path is not None and not path.is_file():
        raise UsageError(f"{option} {path} is no file; give one that is there")


def check_empty(folder: Path) -> None:
    """UsageError unless `folder` does not exist or is an empty folder."""
    if present(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already holds something, which is never overwritten; give another folder")


def check_output(output: Path, checkpoint: Path | None = None) -> None:
    """UsageError if the result or the checkpoint of a long run could not be saved there.

    output: must be new, or an empty folder that can be replaced. checkpoint: must be a file outside `output`.
    """
    check_empty(output)
    check_place(output, "--output")
    if output.is_symlink() or os.path.ismount(output) or output.resolve() == Path.cwd():
        raise UsageError(
            f"{output} is a link, a mount or the current folder, which cannot be replaced; name a "
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
    """UsageError unless a file or folder can be made at `path`, given by `option`."""
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
