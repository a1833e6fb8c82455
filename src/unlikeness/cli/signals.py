"""Ctrl-C and the signals that end a process: at once where that is possible, else within a second.

Normally the main thread gets a KeyboardInterrupt, and its `finally` blocks remove unfinished files. But a
long call of a library delays the KeyboardInterrupt, and threads that decode or save delay the end. So a
second thread, which always gets the signal, ends the process a little later: see `endings`.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # as `typing` has it, which is not imported: an interrupt may come this early
    from socket import socket
    from types import FrameType

__all__ = ["WORDS", "install", "outcome", "uninstall"]

GRACE = 0.5
"""Seconds until the second thread ends the process."""

WORDS = {
    getattr(signal, name): word
    for name, word in (("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "terminated"))
    if hasattr(signal, name)
}
"""The signals and their messages. SIGHUP: the terminal was closed."""

_received: list[int] = []
_told: list[bool] = []


def install() -> None:
    """Let these signals end the process from now on. A signal that is ignored already (nohup) stays so."""
    try:
        for number in WORDS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, _interrupt)
    except ValueError:  # not in the main thread, which alone may handle signals
        return

    import threading
    from socket import socketpair

    ours, theirs = socketpair()
    theirs.setblocking(False)
    threading.Thread(target=_watch, args=(ours, theirs), name="signals", daemon=True).start()
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)


def uninstall() -> None:
    """After the work: these signals end the process without a message."""
    ours = [number for number in WORDS if signal.getsignal(number) is _interrupt]
    for number in ours:
        signal.signal(number, signal.SIG_DFL)
    if ours:
        signal.set_wakeup_fd(-1)


def outcome() -> tuple[str, int]:
    """The message for the signal, and the exit status: 128 plus its number."""
    number = _received[0] if _received else int(signal.SIGINT)
    _told.append(True)
    return WORDS[signal.Signals(number)], 128 + number


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise at the first signal only: a second one would interrupt the clean-up after the first."""
    if not _received:
        _received.append(number)
        raise KeyboardInterrupt


def _watch(ours: socket, theirs: socket) -> None:
    """The second thread. theirs: stays open while it runs."""
    import contextlib
    import time

    while True:
        number = next(iter(ours.recv(1)), 0)
        if number in WORDS:
            break
        if not number:
            return
    time.sleep(GRACE)

    from unlikeness.endings import undo_all

    undo_all()
    word = WORDS[signal.Signals(number)]
    with contextlib.suppress(OSError):
        if not _told:
            os.write(2, f"unlikeness: {word}\n".encode())
    os._exit(128 + number)
