"""One run at a time where a run writes: a small file says which, and goes when the run ends.

    with inside(folder): ...   # a run that fills `folder`, and finds what an earlier one has left there
    with beside(path): ...     # a run at whose end `path`, a file or a folder, is there

The file is locked by the operating system, which lets go of it when its process ends in whatever way: a dead
run's file is taken over, also after a restart of the machine. What it says (process, machine, since when)
is for the message, and for file systems that know no locks: there a run counts as dead if its process is
gone, or another one has its number. A run of another machine cannot be seen from here: the message says what
to remove. Whoever has the lock removes the temporary files that dead runs have left.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from unlikeness.endings import undone_by
from unlikeness.errors import UnlikenessError
from unlikeness.files import is_temporary, mark_of

__all__ = ["LOCK", "beside", "check_free", "inside", "is_own"]

LOCK = ".unlikeness.lock"
"""The file of `inside`."""

_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
"""What a lock that somebody has answers; any other answer means that there are none here."""

_FAR = 1 << 30
"""Where Windows locks a byte, which cannot be read then."""

_TRIES = 5
"""In a quarter of a second: somebody may only be looking whether it is locked."""


_held_here: set[int] = set()
"""Descriptors of this process's locks."""


def _let_go_in_child() -> None:
    """A forked child has the descriptors too, and would hold the locks after its parent's end."""
    while _held_here:
        with contextlib.suppress(OSError):
            os.close(_held_here.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def is_own(name: str) -> bool:
    """Whether a file of this name is a lock, or what a dead run has left: nothing that a user would miss."""
    return name == LOCK or is_temporary(name) or (name.startswith(".unlikeness-") and name.endswith(".lock"))


@contextlib.contextmanager
def inside(folder: Path, option: str = "--output") -> Iterator[None]:
    """For a run that writes files into `folder`, which is made if need be.

    option: what names the folder, for the message.

    Raises:
        UnlikenessError: another run has it; it cannot be made or written to.
    """
    with _made(folder, folder, option), _held(folder / LOCK, folder, option):
        _sweep(folder)
        yield


@contextlib.contextmanager
def beside(path: Path, option: str = "--output") -> Iterator[None]:
    """For a run that puts one file or folder at `path` at its end, or now and then. See `inside`."""
    place = path.resolve()
    with _made(place.parent, path, option), _held(_beside(place), path, option):
        own = f".unlikeness-{mark_of(place.name)}"
        with contextlib.suppress(OSError):
            for left in list(place.parent.iterdir()):
                if left.name.startswith(own) and is_temporary(left.name):
                    _remove(left)
        yield


def check_free(folder: Path, option: str = "--output") -> None:
    """UnlikenessError if another run has the folder, as `inside` would say; nothing is made."""
    owner = _live(folder / LOCK)
    if owner is not None:
        raise _busy(owner, folder, option)


@dataclass(frozen=True)
class _Owner:
    """Who has a lock. boot, started: tell the machine's run, and the process, from later ones; or empty."""

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
        """What a lock file says; nobody, if it is not whole."""
        try:
            said = json.loads(text)
            return cls(
                int(said["pid"]), str(said["host"]), str(said["boot"]), str(said["started"]),
                float(said["since"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return cls()

    @property
    def here(self) -> bool:
        """Whether this machine can tell if it lives: by this run of the machine, or by the machine's name."""
        me = _Owner.me()
        return not self.pid or self.host == me.host or (bool(self.boot) and self.boot == me.boot)

    @property
    def alive(self) -> bool:
        """Whether the process is still there, as far as its number and its start tell."""
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
    """Make a folder, and remove it at the end if nothing was put into it."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]

    def remove() -> None:
        with contextlib.suppress(OSError):
            for one in new:
                one.rmdir()

    with undone_by(remove):
        try:
            with _writing(place, option):
                folder.mkdir(parents=True, exist_ok=True)
            yield
        finally:
            remove()


@contextlib.contextmanager
def _held(file: Path, place: Path, option: str) -> Iterator[None]:
    """Have `file` locked, or say who has."""
    opened = _taken(file, place, option)
    _held_here.add(opened)
    released = False

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

    pid = os.getpid()
    with undone_by(release):
        try:
            yield
        finally:
            release()


def _taken(file: Path, place: Path, option: str) -> int:
    """A descriptor of `file` that holds its lock and says whose it is."""
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
            if locked is None:  # the file system knows no locks: what the file says must do
                locked = new or not (owner.alive if owner.pid else _fresh(opened))
            if locked and _same(opened, file):
                if not owner.here:
                    raise UnlikenessError(
                        f"{owner} on {owner.host} writes into {place}, or was stopped there; wait for it, or "
                        f"remove {file} if it is gone"
                    )
                mine = True
                _say(opened)
                return opened
        finally:
            if not mine:
                os.close(opened)
        time.sleep(0.05)
    raise _busy(owner, place, option)


def _lock(opened: int) -> bool | None:
    """Lock a file without waiting: True: it is ours; False: somebody else's; None: here are no locks."""
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


def _say(opened: int) -> None:
    """Write who has it. On a full disk the file stays empty, and the lock holds as well."""
    with contextlib.suppress(OSError):
        os.ftruncate(opened, 0)
        os.lseek(opened, 0, os.SEEK_SET)
        os.write(opened, json.dumps(asdict(_Owner.me())).encode())


def _fresh(opened: int) -> bool:
    """Whether somebody has made the file a moment ago, and may be about to say so in it."""
    return abs(time.time() - os.fstat(opened).st_mtime) < 10


def _same(opened: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), file.stat())
    except OSError:
        return False


def _live(file: Path) -> _Owner | None:
    """Who has `file` locked; None for nobody. One of another machine counts as nobody."""
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


def _beside(place: Path) -> Path:
    return place.with_name(f".unlikeness-{mark_of(place.name)}.lock")


def _sweep(folder: Path) -> None:
    """Remove the temporary files below `folder` that dead runs have left there."""
    for root, folders, names in os.walk(folder):
        if Path(root) != folder and LOCK in names and _live(Path(root, LOCK)) is not None:
            folders.clear()  # another run's
            continue
        for name in names:
            lock = Path(root, f"{name[:20]}.lock")
            if is_temporary(name) and not (lock.name in names and _live(lock) is not None):
                _remove(Path(root, name))


def _remove(left: Path) -> None:
    """A file or a folder that nobody misses; one that cannot be removed stays."""
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            left.unlink()


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
    """What tells this run of the machine from earlier ones, where the system says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _started(pid: int) -> str:
    """When a process was started, in the system's own count, where it says so."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[19].decode()
    except (OSError, ValueError, IndexError):
        return ""
