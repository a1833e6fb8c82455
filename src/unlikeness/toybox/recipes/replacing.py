"""A finished result takes the place of an earlier one in one move."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A new folder's path beside `output`, which it replaces when the block ends without an error."""
    part = output.with_name(f".{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    yield part
    shutil.rmtree(output, ignore_errors=True)
    part.rename(output)
