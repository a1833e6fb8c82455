"""A finished result takes the place of an earlier one in one move."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from unlikeness.errors import UnlikenessError
from unlikeness.tensors import for_readers


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A new folder's path beside `output`, which it replaces when the block ends without an error.

    UnlikenessError if it cannot be written.
    """
    part = output.with_name(f".{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        for_readers(*part.rglob("*"))
        shutil.rmtree(output, ignore_errors=True)
        part.rename(output)
    except (OSError, SafetensorError) as error:
        raise UnlikenessError(
            f"{output} cannot be written ({error}); free space there, or name another --output"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
