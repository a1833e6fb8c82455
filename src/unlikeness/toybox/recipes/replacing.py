"""A finished result takes the place of an earlier one in one move."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unlikeness.tensors import for_readers, written


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A new folder's path beside `output`, which it replaces when the block ends without an error.

    UnlikenessError if it cannot be written.
    """
    part = output.with_name(f".{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with written(f"{output} cannot be written", "free space there, or name another --output"):
            yield part
            for_readers(*part.rglob("*"))
            shutil.rmtree(output, ignore_errors=True)
            part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
