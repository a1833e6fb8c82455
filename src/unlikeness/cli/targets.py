"""Check the file or folder that a command is to write, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.paths import check_place

__all__ = ["check_target"]


def check_target(
    target: Path, suffix: str = "", *, overwrite: bool, is_ours: Callable[[Path], bool] | None = None,
    checkpoint: Path | None = None,
) -> None:  # fmt: skip
    """UsageError unless `target`, given by --output, can be written, and is free or may be replaced.

    suffix: how its name must end. is_ours: whether an existing target is an earlier result; only those are
    replaced. checkpoint: a file that must be another one.
    """
    if suffix and target.suffix != suffix:
        raise UsageError(f"--output {target} must be a file name that ends in {suffix}")
    if checkpoint is not None and target.resolve() == checkpoint.resolve():
        raise UsageError(f"{target} is where the checkpoint will be; name another --output or --work")
    if suffix and target.is_dir() and is_ours is None:
        raise UsageError(f"--output {target} is a folder; name a file")
    check_place(target, "--output")
    if not target.exists() or (not suffix and target.is_dir() and not any(target.iterdir())):
        return
    if is_ours is not None and not is_ours(target):
        raise UsageError(f"{target} exists and is no earlier result; name another --output")
    if not overwrite:
        raise UsageError(f"{target} exists; give --overwrite to replace it, or another --output")
