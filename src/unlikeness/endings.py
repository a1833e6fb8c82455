"""The end of a process: what must be undone first, and processes that end with their parent.

Ordinarily a `finally` removes temporary files and locks and shows the cursor again. It cannot run while a
thread or a library is in a long call. Then the command line calls `undo_all` and ends the process: see
`cli.signals`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["follow_parent", "undo_all", "undone_by"]

_open: dict[object, Callable[[], None]] = {}


@contextlib.contextmanager
def undone_by(undo: Callable[[], None]) -> Iterator[None]:
    """Call `undo` if the process must end at once inside the block; another thread may call it."""
    key = object()
    _open[key] = undo
    try:
        yield
    finally:
        _open.pop(key, None)


def undo_all() -> None:
    """Undo everything that is open, the latest first; a failure does not stop the rest."""
    for key, undo in reversed(list(_open.items())):
        with contextlib.suppress(Exception):
            undo()
        _open.pop(key, None)


def follow_parent() -> None:
    """For the `initializer` of a pool of processes: end with the parent, and leave Ctrl-C to it.

    Without it, a process whose parent was killed would wait for work for ever, and an interrupted one would
    print a traceback.
    """
    import os
    import signal
    import threading
    from multiprocessing import parent_process

    def wait() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=wait, name="parent", daemon=True).start()
