"""Weights on disk: complete or not there, and as readable as any other new file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from unlikeness.errors import UnlikenessError, one_line
from unlikeness.files import replacing

__all__ = ["for_readers", "save_tensors", "written"]


@contextlib.contextmanager
def written(failure: str, remedy: str) -> Iterator[None]:
    """UnlikenessError, "FAILURE (why); REMEDY", for what cannot be written inside, by safetensors too, whose
    error is no OSError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UnlikenessError(f"{failure} ({one_line(str(error))}); {remedy}") from error


def for_readers(*paths: Path) -> None:
    """Give files and folders the permissions of new ones: safetensors and tempfile keep theirs to the owner.

    A file system that knows no permissions keeps its own.
    """
    umask = os.umask(0o077)  # it can only be asked for by setting it
    os.umask(umask)
    for path in paths:
        with contextlib.suppress(OSError):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None, *, called: str = ""
) -> None:
    """Write contiguous tensors to `path` as safetensors, in one move. UnlikenessError if it cannot be.

    called: what the file is, for that sentence.
    """
    from safetensors.torch import save_file

    with written(f"{called} {path} cannot be written".strip(), "free space there, or name another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file(dict(tensors), part, None if metadata is None else dict(metadata))
            for_readers(part)
