"""A finished result takes the place of an earlier one, which goes when the new one is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unlikeness.files import sync
from unlikeness.tensors import for_readers, written


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A new folder's path beside `output`, which it replaces when the block ends without an error.

    UnlikenessError if it cannot be written.
    """
    part, old = (output.with_name(f".{output.name}.{what}") for what in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    try:
        with written(f"{output} cannot be written", "free space there, or name another --output"):
            yield part
            for_readers(*part.rglob("*"))
            sync(part)
            if output.exists():
                shutil.rmtree(old, ignore_errors=True)
                output.rename(old)
            part.rename(output)
    finally:
        if old.exists() and not output.exists():
            old.rename(output)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
