"""One run at a time in a place: a small file names the run, and goes when the run ends.

    with inside(folder): ...   # a run that fills `folder`, and finds what an earlier one left there
    with beside(path): ...     # a run at whose end `path`, a file or a folder, is there

The operating system locks the file and releases it when the process ends in any way, so the file of a dead
run is taken over, also after a restart of the machine. Its content (process, machine, time) serves the
message, and file systems without locks: there a run counts as dead if its process is gone, or another process
has its number. A run on another machine cannot be seen, so the message says what to remove. The owner of the
lock removes the temporary files of dead runs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from unlikeness.endings import undone_by
from unlikeness.errors import UnlikenessError
from unlikeness.files import is_temporary, mark_of, remove

__all__ = ["LOCK", "beside", "check_free", "inside", "is_own"]

LOCK = ".unlikeness.lock"
"""The file of `inside`."""
_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
"""Errors for a lock that is held; any other means that this file system has no locks."""
_FAR = 1 << 30
"""Place of the byte that Windows locks, which cannot be read then."""
_TRIES = 5
"""Within a quarter of a second, since another process may only be checking the lock."""

_held_here: set[int] = set()
"""Descriptors of this process's locks."""


def _let_go_in_child() -> None:
    """Close the descriptors in a fork, which would hold the locks after its parent's end."""
    while _held_here:
        with contextlib.suppress(OSError):
            os.close(_held_here.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def is_own(name: str) -> bool:
    """Whether a file of this name is a lock or a temporary file, which no user would miss."""
    return name == LOCK or is_temporary(name) or (name.startswith(".unlikeness-") and name.endswith(".lock"))


@contextlib.contextmanager
def inside(folder: Path, option: str = "--output") -> Iterator[None]:
    """For a run that writes files into `folder`, which is created if need be.

    option: the option that names the folder, for the message.

    UnlikenessError if another run holds the folder, or if it cannot be created or written to.
    """
    with _made(folder, folder, option), _held(folder / LOCK, folder, option):
        _sweep(folder)
        yield


@contextlib.contextmanager
def beside(path: Path, option: str = "--output") -> Iterator[None]:
    """For a run that writes one file or folder at `path`, at its end or in between. See `inside`."""
    place = path.resolve()
    own = f".unlikeness-{mark_of(place.name)}"
    with _made(place.parent, path, option), _held(place.with_name(f"{own}.lock"), path, option):
        with contextlib.suppress(OSError):
            for left in list(place.parent.iterdir()):
                if left.name.startswith(own) and is_temporary(left.name):
                    remove(left)
        yield


def check_free(folder: Path, option: str = "--output") -> None:
    """UnlikenessError if another run holds the folder, as in `inside`; nothing is created."""
    owner = _live(folder / LOCK)
    if owner is not None:
        raise _busy(owner, folder, option)


@dataclass(frozen=True)
class _Owner:
    """The run that holds a lock. boot, started: identify the machine's run and the process; may be empty."""

    pid: int = 0
    host: str = ""
    boot: str = ""
    started: str = ""
    since: float = 0.0

    @classmethod
    def me(cls) -> _Owner:
        pid = os.getpid()
        return cls(pid, socket.gethostname(), _boot(), _started(pid), time.time())

    @classmethod
    def of(cls, text: bytes) -> _Owner:
        """The owner that a lock file names; an empty one if the file is not complete."""
        try:
            said = json.loads(text)
            host, boot, started = (str(said[name]) for name in ("host", "boot", "started"))
            return cls(int(said["pid"]), host, boot, started, float(said["since"]))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return cls()

    @property
    def here(self) -> bool:
        """Whether this machine can check it: it has the same start of the machine, or the same name."""
        me = _Owner.me()
        return not self.pid or self.host == me.host or (bool(self.boot) and self.boot == me.boot)

    @property
    def alive(self) -> bool:
        """Whether the process still exists, by its number and its start."""
        if not self.pid or (self.boot and self.boot != _boot()):
            return False
        if os.name == "nt":
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True
        return not (self.started and _started(self.pid)) or self.started == _started(self.pid)

    def __str__(self) -> str:
        if not self.pid:
            return "another run"
        then = datetime.fromtimestamp(self.since)
        day = "" if then.date() == datetime.now().date() else f"{then:%d %B} "
        return f"another run (process {self.pid}, since {day}{then:%H:%M})"


def _busy(owner: _Owner, place: Path, option: str) -> UnlikenessError:
    return UnlikenessError(f"{owner} writes into {place}; wait for it or name another {option}")


@contextlib.contextmanager
def _made(folder: Path, place: Path, option: str) -> Iterator[None]:
    """Create a folder, and remove it at the end if it is empty."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]

    def undo() -> None:
        with contextlib.suppress(OSError):
            for one in new:
                one.rmdir()

    with undone_by(undo):
        try:
            with _writing(place, option):
                folder.mkdir(parents=True, exist_ok=True)
            yield
        finally:
            undo()


@contextlib.contextmanager
def _held(file: Path, place: Path, option: str) -> Iterator[None]:
    """Hold the lock of `file`, or raise an error that names its owner."""
    opened = _taken(file, place, option)
    _held_here.add(opened)
    pid, released = os.getpid(), False

    def release() -> None:
        nonlocal released
        if released or os.getpid() != pid:
            return
        released = True
        _held_here.discard(opened)
        if os.name == "nt":  # which removes no open file
            os.close(opened)
        with contextlib.suppress(OSError):
            file.unlink()
        if os.name != "nt":
            os.close(opened)

    with undone_by(release):
        try:
            yield
        finally:
            release()


def _taken(file: Path, place: Path, option: str) -> int:
    """A descriptor of `file` that holds its lock. The file then names this run."""
    owner = _Owner()
    for _ in range(_TRIES):
        with _writing(place, option):
            try:
                opened, new = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
            except FileExistsError:
                try:
                    opened, new = os.open(file, os.O_RDWR), False
                except FileNotFoundError:  # its owner has just removed it
                    continue
        mine = False
        try:
            locked = _lock(opened)
            owner = _Owner.of(_read(opened))
            if locked is None:  # without locks, the content of the file decides
                locked = new or not (owner.alive if owner.pid else _fresh(opened))
            if locked and _same(opened, file):
                if not owner.here:
                    raise UnlikenessError(
                        f"{owner} on {owner.host} writes into {place}, or was stopped there; wait for it, or "
                        f"remove {file} if it is gone"
                    )
                mine = True
                _write_owner(opened)
                return opened
        finally:
            if not mine:
                os.close(opened)
        time.sleep(0.05)
    raise _busy(owner, place, option)


def _lock(opened: int) -> bool | None:
    """Lock a file without waiting. True: this process holds it; False: another; None: there are no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(opened, _FAR, os.SEEK_SET)
            msvcrt.locking(opened, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


def _read(opened: int) -> bytes:
    os.lseek(opened, 0, os.SEEK_SET)
    return os.read(opened, 4096)


def _write_owner(opened: int) -> None:
    """Name this run in the file. On a full disk the file stays empty, and the lock holds all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(opened, 0)
        os.lseek(opened, 0, os.SEEK_SET)
        os.write(opened, json.dumps(asdict(_Owner.me())).encode())


def _fresh(opened: int) -> bool:
    """Whether the file was created a moment ago, so that its owner may be about to write into it."""
    return abs(time.time() - os.fstat(opened).st_mtime) < 10


def _same(opened: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), file.stat())
    except OSError:
        return False


def _live(file: Path) -> _Owner | None:
    """The owner of the lock of `file`, or None. A run on another machine counts as none."""
    try:
        opened = os.open(file, os.O_RDWR)
    except OSError:
        return None
    try:
        known = _lock(opened)
        owner = _Owner.of(_read(opened))
    except OSError:
        return None
    finally:
        os.close(opened)
    return owner if known is False or (known is None and owner.here and owner.alive) else None


def _sweep(folder: Path) -> None:
    """Remove the temporary files of dead runs below `folder`."""
    for root, folders, names in os.walk(folder):
        if Path(root) != folder and LOCK in names and _live(Path(root, LOCK)) is not None:
            folders.clear()  # another run's
            continue
        for name in names:
            lock = Path(root, f"{name[:20]}.lock")
            if is_temporary(name) and not (lock.name in names and _live(lock) is not None):
                remove(Path(root, name))


@contextlib.contextmanager
def _writing(place: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnlikenessError(
            f"{place}: it cannot be written ({error.strerror}); free some space or name another {option}, "
            "and start again: what is finished stays"
        ) from error


def _boot() -> str:
    """Identifies this start of the machine, where the system has such a number."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _started(pid: int) -> str:
    """The start of a process in the system's own count, where the system shows it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[19].decode()
    except (OSError, ValueError, IndexError):
        return ""
