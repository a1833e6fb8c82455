"""What has to be undone when the process must end at once: temporary files, locks, a hidden cursor.

Ordinarily a `finally` does it. Where that cannot run, since a thread or a library is in the middle of a long
call, the command line ends the process after `undo_all`; see `cli.signals`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["undo_all", "undone_by"]

_open: dict[object, Callable[[], None]] = {}


@contextlib.contextmanager
def undone_by(undo: Callable[[], None]) -> Iterator[None]:
    """Inside, `undo` is what an end at once has to call; it may be called from another thread."""
    key = object()
    _open[key] = undo
    try:
        yield
    finally:
        _open.pop(key, None)


def undo_all() -> None:
    """Call everything that is open, the latest first; nothing that fails keeps the rest from being done."""
    for key, undo in reversed(list(_open.items())):
        with contextlib.suppress(Exception):
            undo()
        _open.pop(key, None)
