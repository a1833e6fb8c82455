"""The work of the service: pictures are protected and compared by the code of the command line, in threads.

Every request has a place while it lasts, with a private folder for its files, which is removed at its end. A
request whose client went away, or whose time is over, keeps its place until its thread has finished.
"""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import Receive

from unlikeness import locks
from unlikeness.endings import undone_by
from unlikeness.errors import PictureError, UnlikenessError, one_line
from unlikeness.files import remove
from unlikeness.pictures import kinds, open_picture
from unlikeness.protect.against import against_of
from unlikeness.protect.files.check import compare
from unlikeness.protect.files.manifest import Entry, Manifest
from unlikeness.protect.files.targets import Target
from unlikeness.protect.files.worker import Worker
from unlikeness.protect.settings import ResolutionMode
from unlikeness.protect.tiling import batches
from unlikeness.serve.faults import Fault
from unlikeness.serve.settings import Limits, Wanted
from unlikeness.serve.uploads import Gone

if TYPE_CHECKING:
    from unlikeness.protect.methods.rid import Rid

__all__ = ["TYPES", "Place", "Work", "media_type", "private_folder"]

T = TypeVar("T")

TYPES = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff", "BMP": "image/bmp",
    "HEIC": "image/heic", "AVIF": "image/avif",
}  # fmt: skip
"""Formats of pictures -> their media types."""

AT_ONCE = 2
"""Pictures that are computed at a time, as many as are decoded at a time."""

_PREFIX = "unlikeness-serve-"
_YOUNG = 60
"""Seconds in which a folder may not be locked yet."""


class _Nowhere(Manifest):
    """A manifest that is not written: a request's line is its answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, read_only=True)

    def append(self, entry: Entry) -> None:
        """Keep nothing."""


class Place:
    """A request's place: its folder, and the work that uses it."""

    def __init__(self, folder: Path, leave: Callable[[], None]) -> None:
        self.folder = folder
        self._leave = leave
        self._over = False
        self._done: asyncio.Future[Any] | None = None

    async def run(self, work: Callable[[], T], pool: ThreadPoolExecutor, receive: Receive) -> T:
        """Do `work` in a thread. Gone if the client goes away before its end.

        receive: the request's, whose body has been read.
        """
        job = pool.submit(work)
        done: asyncio.Future[Any] = asyncio.wrap_future(job)
        self._done = done
        left: asyncio.Future[Any] = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait([done, left], return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise Gone
            found: T = done.result()
            return found
        finally:
            left.cancel()
            job.cancel()  # if it has not begun

    @property
    def begun(self) -> bool:
        """Whether the body has arrived, and the work waits or runs."""
        return self._done is not None

    def close(self) -> None:
        """Remove the folder and make room for the next request, at the end of the work. May be repeated."""
        if self._done is not None and not self._done.done():
            self._done.add_done_callback(self._close)
        elif not self._over:
            self._over = True
            shutil.rmtree(self.folder, ignore_errors=True)
            self._leave()

    def _close(self, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # who waited for it is gone
        self.close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Work:
    """All that the service computes.

    Args:
        networks: name -> protection.
        folder: where the places' folders are made.
    """

    def __init__(self, networks: Mapping[str, Rid], limits: Limits, folder: Path) -> None:
        self.networks, self.limits, self.folder = dict(networks), limits, folder
        self.places = 0
        self._free = asyncio.Semaphore(limits.queue)
        self.pool = ThreadPoolExecutor(AT_ONCE, "pictures")

    async def enter(self) -> Place:
        """A place, as soon as one is free: until then nothing is read of the body. Fault 503 if the disk has
        no room.
        """
        await self._free.acquire()
        try:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
        except OSError as error:
            self._free.release()
            raise Fault(503, f"nothing can be stored ({error.strerror}); free some space") from error
        self.places += 1
        return Place(folder, self._leave)

    def _leave(self) -> None:
        self.places -= 1
        self._free.release()

    def protect(self, source: Path, copied: Path, wanted: Wanted) -> Entry:
        """Write the protected picture `source` to `copied`: the bytes that `unlikeness protect` writes.

        Fault 415 for no picture of a known format, 422 for one that cannot be used, and for a copy that would
        not be protected; UnlikenessError.
        """
        perturber = copy.copy(self.networks[wanted.weights])
        perturber.settings = replace(perturber.settings, budget=wanted.budget)
        worker = Worker(
            _Nowhere(source.parent), perturber, recipe={}, computed={}, at=ResolutionMode(mode=wanted.at),
            seed=0, max_pixels=self.limits.max_pixels, psnr=wanted.psnr, masks={},
        )  # fmt: skip
        opened = worker.open(Target(source, copied, "the picture"))
        size = batches.default_batch_size(perturber.resolution, perturber.device)
        for work in batches.run([opened], perturber, batch_size=size):
            worker.finish(work)
        entry = opened.entry
        assert entry is not None
        if entry.status == "skipped":
            raise Fault(_status_of(source), str(entry.reason))
        if entry.status == "unchanged":
            raise Fault(422, str(entry.note))
        return entry

    def measure(self, before: Path, after: Path) -> dict[str, Any]:
        """How far two pictures differ: linf [n/255], psnr [dB, None: identical] and ssim.

        Fault 415 and 422 as for `protect`, and 422 for two sizes.
        """
        opened = []
        for path in (before, after):
            try:
                opened.append(open_picture(path, max_pixels=self.limits.max_pixels))
            except PictureError as error:
                said = str(error).replace(one_line(str(path)), path.name)
                raise Fault(_status_of(path), said) from error
        if opened[0].size != opened[1].size:
            (w, h), (v, g) = (one.size for one in opened)
            raise Fault(422, f"before has {w} × {h} px, after {v} × {g} px; send pictures of one size")
        seen = compare(*opened)
        width, height = opened[0].size
        return {**asdict(seen), "width": width, "height": height}

    def against(self, wanted: Wanted) -> str:
        """What the protection was computed against, in a sentence."""
        return against_of(self.networks[wanted.weights]).sentence


def media_type(path: Path) -> str:
    """The media type of a picture."""
    with path.open("rb") as file:
        return TYPES.get(str(kinds.format_of(file.read(4096))), "application/octet-stream")


def _status_of(path: Path) -> int:
    """415 for a file of a format that cannot be protected, otherwise 422."""
    with path.open("rb") as file:
        head = file.read(4096)
    found = kinds.announced(head[: kinds.HEAD])
    kind = found if found and found not in kinds.SUPPORTED else kinds.format_of(head)
    return 422 if kind in TYPES else 415


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can read, and that is removed at the end of the block or the process.

    A service that was killed could not remove its folder: the next one does.
    """
    disk = Path("/var/tmp")  # /tmp is memory on many systems
    ours = sys.platform == "linux" and "TMPDIR" not in os.environ and disk.is_dir()
    home = disk if ours else Path(tempfile.gettempdir())
    for old in home.glob(f"{_PREFIX}*"):
        if _is_left(old):
            remove(old)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
    with undone_by(lambda: remove(folder)):
        try:
            with locks.inside(folder):
                yield folder
        finally:
            remove(folder)


def _is_left(folder: Path) -> bool:
    """Whether a service of this user that runs no longer left this folder."""
    try:
        status = folder.lstat()
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            return False
        if not stat.S_ISDIR(status.st_mode) or time.time() - status.st_mtime < _YOUNG:
            return False
        locks.check_free(folder)
    except (OSError, UnlikenessError):
        return False
    return True
