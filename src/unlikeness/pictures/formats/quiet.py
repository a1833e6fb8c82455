"""Keeping libtiff from writing to the terminal: it reports damaged data on file descriptor 2, past Python."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from threading import Lock

__all__ = ["quiet"]

_one_at_a_time = Lock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send file descriptor 2 to nowhere for the time of a short call; one thread at a time, so that each puts
    back what it found. Where there is no such descriptor, nothing is done.
    """
    with _one_at_a_time:
        try:
            kept = os.dup(2)
        except OSError:
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
