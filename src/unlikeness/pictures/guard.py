"""Decoding in another process, so that no file can hang this one, fill its memory or take it over.

A file that takes too long, needs too much memory or crashes its decoder costs only that process. The file
is refused with a reason, and the next one goes to a fresh process. The process is light (numpy and Pillow),
waits for the next file, and ends with this one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from unlikeness.errors import UnlikenessError, one_line
from unlikeness.pictures.limits import OVER, TOO_LARGE, Limits, Unusable
from unlikeness.pictures.wire import Link, packed, unpacked

if TYPE_CHECKING:
    from unlikeness.pictures.worker import Decoded

__all__ = ["LIMITS", "PROGRAM", "close", "decode", "prepare"]

LIMITS = Limits()
PROGRAM = "from unlikeness.pictures.worker import main; main()"
"""What the process runs."""
_START = "import sys; sys.path[:] = sys.argv[1:]; "
_START_SECONDS = 120
_END_SECONDS = 5
"""A process closes its link when it begins to end; it may have a large picture to let go of."""
_AT_ONCE = 2
"""Processes at a time: one file is read while another is read again."""


def decode(path: Path, max_pixels: int) -> Decoded:
    """`worker.decode_file` in another process.

    A waiting process may be killed from outside before it answers. Then the file goes once to a new process,
    and only if that dies as well is it the file's fault.

    Unusable, with the reason, for a file that cannot be used; UnlikenessError if no process can be started.
    """
    try:
        with _pool.child() as child:
            return child.decode(path, max_pixels)
    except _KilledError:
        with _pool.child(new=True) as child:
            return child.decode(path, max_pixels)


def prepare() -> None:
    """Start the process now, so that it is ready when it is needed. Failures are reported then."""
    with contextlib.suppress(UnlikenessError):
        _pool.prepare()


def close() -> None:
    """End the waiting processes. New ones are started when they are needed."""
    _pool.close()


class _KilledError(Exception):
    """A process that had been waiting was killed, and its file is not known to be the reason."""


class _TooLongError(Exception):
    """A process does not answer within its time."""


class _Child:
    """One process that decodes."""

    def __init__(self) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise _cannot_start("this program has no Python interpreter beside it")
        ours, theirs = socket.socketpair()
        self.link = Link(ours)
        self.ready = False
        self.fit = True
        self.waited = False
        """Whether it waited for this file, and was not started for it."""
        command = [sys.executable, "-P", "-c", _START + PROGRAM, *(str(place) for place in sys.path)]
        few = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if sys.platform == "win32" else theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **few},
                creationflags=_WITHOUT_A_WINDOW,
            )
            if sys.platform == "win32":
                assert self.process.stdin is not None
                share = theirs.share(self.process.pid)
                self.process.stdin.write(b"%d\n" % len(share) + share)
                self.process.stdin.close()
        except OSError as error:
            ours.close()
            raise _cannot_start(error.strerror or str(error)) from error
        finally:
            theirs.close()

    def decode(self, path: Path, max_pixels: int) -> Decoded:
        """See the module's `decode`. After a fault the process is not fit for another file."""
        self.fit = False
        self._greet()
        request = {"path": os.fsencode(_absolute(path)).hex(), "max_pixels": max_pixels, **asdict(LIMITS)}
        deadline = time.monotonic() + LIMITS.waiting
        try:
            self.link.send(packed(request))
            kind, answer, *last = unpacked(*self.link.receive(lambda: self._check(deadline)))
        except _TooLongError:
            longest = f"reading it takes longer than {LIMITS.waiting} seconds; copy it to another disk"
            raise Unusable(longest) from None
        except (EOFError, OSError):
            raise self._end_of() from None
        except (ValueError, TypeError, LookupError, AttributeError, ImportError, RecursionError) as error:
            raise Unusable(_CRASHED) from error
        if kind == "picture":
            self.fit = last == [False]
            decoded: Decoded = answer
            return decoded
        if kind == "unusable":
            self.fit = last == [False]
            raise Unusable(str(answer))
        raise Unusable(f"its decoder failed ({one_line(str(answer))}); export it again, and report this file")

    def close(self) -> None:
        """End the process at once."""
        self.link.close()
        with contextlib.suppress(OSError):
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _greet(self) -> None:
        """Wait, the first time, until the process is ready. UnlikenessError if it never is."""
        if not self.ready:
            deadline = time.monotonic() + _START_SECONDS
            try:
                self.link.receive(lambda: self._check(deadline))
            except _TooLongError as error:
                raise _cannot_start(f"it is not ready after {_START_SECONDS} seconds") from error
            except (EOFError, OSError) as error:
                if self.waited and self._status() in _FROM_OUTSIDE:
                    raise _KilledError from error
                raise _cannot_start(self._last_words()) from error
            self.ready = True

    def _check(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise _TooLongError

    def _status(self) -> int | None:
        """The exit status of a process whose end of the link is closed; None if it goes on all the same."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        return self.process.poll()

    def _last_words(self) -> str:
        """The last line that the process wrote."""
        self.process.kill()
        said = b"" if self.process.stderr is None else self.process.stderr.read()
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self.process.wait()}"

    def _end_of(self) -> Exception:
        """Why the process ended in the middle of a file."""
        status = self._status()
        if self.waited and status in _FROM_OUTSIDE:
            return _KilledError()
        if status == OVER or (sys.platform != "win32" and status == -signal.SIGXCPU):
            return Unusable(
                f"decoding it takes longer than {LIMITS.seconds} seconds of computing; export it again"
            )
        if sys.platform != "win32" and status == -signal.SIGKILL:  # by Linux, where memory is short
            return Unusable(TOO_LARGE)
        return Unusable(_CRASHED)


_CRASHED = "it is damaged (its decoder crashed); copy it again, or open and export it elsewhere"
_FROM_OUTSIDE = (
    # Windows has no signals: its task manager ends a process with the status 1, and `terminate` with any.
    (1,)
    if sys.platform == "win32"
    else tuple(-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
)
"""Exit statuses of a process that another one ended. A decoder's own faults have others."""
_WITHOUT_A_WINDOW = 0x08000000 if sys.platform == "win32" else 0


class _Pool:
    """All processes."""

    def __init__(self) -> None:
        self.idle: list[_Child] = []
        self.slots = threading.BoundedSemaphore(_AT_ONCE)
        self.lock = threading.Lock()

    @contextmanager
    def child(self, *, new: bool = False) -> Iterator[_Child]:
        """A process for one file. It then waits for the next, or is ended if it is not fit.

        new: do not take one that waits.
        """
        with self.slots:
            child = _Child() if new else self._take()
            try:
                yield child
            finally:  # also where Ctrl-C came in the middle of a file
                if child.fit:
                    with self.lock:
                        self.idle.append(child)
                else:
                    child.close()

    def prepare(self) -> None:
        with self.lock:
            if not self.idle:
                self.idle.append(_Child())

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()

    def _take(self) -> _Child:
        while True:
            with self.lock:
                child = self.idle.pop() if self.idle else None
            if child is None:
                return _Child()
            if child.process.poll() is None:
                child.waited = True
                return child
            child.close()


def _absolute(path: Path) -> str:
    """The absolute path, with nothing resolved."""
    with contextlib.suppress(OSError):
        return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
    return str(path)


def _cannot_start(reason: str) -> UnlikenessError:
    return UnlikenessError(
        f"no picture can be read: the process that decodes them cannot be started ({one_line(reason)}); "
        "let Python start processes, or install unlikeness again"
    )


def _forget() -> None:
    """In a fork of this process: let go of the parent's processes."""
    global _pool
    for child in _pool.idle:
        child.link.close()
    _pool = _Pool()


_pool = _Pool()
atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
