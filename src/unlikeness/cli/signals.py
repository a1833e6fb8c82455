"""Ctrl-C, and the signals that ask a process to end: at once where that is possible, else within a second.

The ordinary way is a KeyboardInterrupt in the main thread, whose `finally` blocks remove what is half done.
It does not come while the main thread is in a long call of a library, and it waits for threads that decode
or save. So a second thread, which the signal reaches in any case, ends the process a little later:
see `endings`.
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
"""Seconds that the ordinary way has."""

WORDS = {
    getattr(signal, name): word
    for name, word in (("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "terminated"))
    if hasattr(signal, name)
}
"""The signals, and what is said of them. SIGHUP: the terminal was closed."""

_received: list[int] = []
_told: list[bool] = []


def install() -> None:
    """From now on these signals end the process; one that is ignored already (nohup) stays so."""
    try:
        for number in WORDS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, _interrupt)
    except ValueError:  # called in another thread than the main one: signals are somebody else's
        return

    import threading
    from socket import socketpair

    ours, theirs = socketpair()
    theirs.setblocking(False)
    threading.Thread(target=_watch, args=(ours, theirs), name="signals", daemon=True).start()
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)


def uninstall() -> None:
    """The work is done: from now on these signals end the process without a word."""
    ours = [number for number in WORDS if signal.getsignal(number) is _interrupt]
    for number in ours:
        signal.signal(number, signal.SIG_DFL)
    if ours:
        signal.set_wakeup_fd(-1)


def outcome() -> tuple[str, int]:
    """What to say of the end, and the status that a shell reports: 128 and the signal's number."""
    number = _received[0] if _received else int(signal.SIGINT)
    _told.append(True)
    return WORDS[signal.Signals(number)], 128 + number


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Only the first one counts: a second one would interrupt the clearing up after the first."""
    if not _received:
        _received.append(number)
        raise KeyboardInterrupt


def _watch(ours: socket, theirs: socket) -> None:
    """The second thread. theirs: kept open as long as it runs."""
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
