"""Processes that share the work: they end with their parent, and leave Ctrl-C to it."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process

__all__ = ["follow_parent"]


def follow_parent() -> None:
    """For the `initializer` of a pool of processes: one whose parent was killed would wait for work for ever,
    and one that is interrupted itself would show a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait, name="parent", daemon=True).start()


def _wait() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
