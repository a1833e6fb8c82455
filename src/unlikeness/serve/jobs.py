"""Jobs: many pictures at a time, which wait in a queue and are computed one job after the other.

A job is a folder and a row of the `Store`. Only its id leads there, which cannot be guessed and is not kept.
Its originals are deleted when it ends, and the result when its time is over. A service that was killed goes
on with its jobs when it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request

from unlikeness import locks
from unlikeness.files import remove, sync
from unlikeness.serve import uploads
from unlikeness.serve.faults import Fault
from unlikeness.serve.folders import Folder, size_of
from unlikeness.serve.settings import Limits
from unlikeness.serve.store import ENDED, Store
from unlikeness.serve.task import COPIES, ORIGINALS, RESULT

__all__ = ["Jobs", "kill", "opened_jobs"]

T = TypeVar("T")

_LIVE = ("pictures", "finished", "step", "seconds_left")
"""Figures of the running job that its clients see."""
_PREFIX = "job-"
_MOST_WATCHERS = 64
_BEAT = 15.0
"""Seconds without news after which a stream shows that it is alive."""
_SLOWEST = 1 << 20
"""Bytes in a second: a slower upload of a job is refused."""


@contextlib.contextmanager
def opened_jobs(folder: Path, limits: Limits) -> Iterator[Jobs]:
    """The jobs that are kept in `folder`, which is made if need be.

    UnlikenessError if another service has it, or if it cannot be used.
    """
    with locks.inside(folder, "--jobs"):
        jobs = Jobs(folder, limits)
        try:
            yield jobs
        finally:
            jobs.close()


class Jobs:
    """The jobs of the service, in a folder of its own: see `opened_jobs`."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.store = Store(folder)
        self._arriving: dict[str, int] = {}
        """Job whose files arrive -> bytes that they may take."""
        self.live: dict[str, Any] = {}
        """The last figures of the running job."""
        self.process: tuple[str, asyncio.subprocess.Process] | None = None
        self._watchers = 0
        self._news, self.more = asyncio.Event(), asyncio.Event()
        self._sweep()

    def close(self) -> None:
        """Close the queue. The jobs stay."""
        self.store.close()

    async def add(self, request: Request, task: Mapping[str, Any]) -> dict[str, Any]:
        """Take the files of a request, a form or a zip, as a new job. Its state.

        Fault 503 while the queue or the disk is full, 408 for an upload that takes too long, 400, 413, 415
        and 422 for files that cannot be used; Gone.
        """
        limits = self.limits
        most = min(uploads.announced(request) or limits.job_bytes, limits.job_bytes)
        room = most + (0 if uploads.is_form(request) else limits.job_bytes)  # a zip is unpacked, too
        if self.store.waiting() + len(self._arriving) >= limits.queue:
            raise Fault(503, f"{limits.queue} jobs wait already; try again later", {"retry-after": "60"})
        if self.used() + room > limits.disk:
            raise Fault(503, "the disk of the jobs is full; try again later", {"retry-after": "600"})
        job = secrets.token_hex(16)
        key = _key(job)
        place = self.folder / key
        self._arriving[key] = room
        try:
            try:
                place.mkdir(0o700)
                (place / ORIGINALS).mkdir()
                pictures = await self._receive(request, place)
            except OSError as error:
                raise Fault(503, f"nothing can be stored ({error.strerror}); try again later") from error
            self.store.add(key, task, pictures, size_of(place))
        except BaseException:
            remove(place)
            raise
        finally:
            del self._arriving[key]
        self.more.set()
        self.tell()
        return self.state(job)

    async def _receive(self, request: Request, place: Path) -> int:
        """Write a request's files below the job's folder. The number of pictures."""
        files, packed = Folder(place / ORIGINALS), place / "packed"
        most = self.limits.job_bytes
        seconds = max(self.limits.seconds, most // _SLOWEST)
        try:
            async with asyncio.timeout(seconds):
                if uploads.is_form(request):
                    await uploads.write_form(request, lambda field, name: files.place(name), most)
                else:
                    await uploads.write_body(request, packed, most)
        except TimeoutError:
            raise Fault(408, f"the upload takes longer than {seconds} seconds; send fewer pictures") from None

        def finish() -> int:
            if packed.exists():
                files.unpack(packed, most)
                packed.unlink()
            pictures = files.check()
            sync(place)
            return pictures

        return await _to_the_end(finish)

    def state(self, job: str) -> dict[str, Any]:
        """What clients see of a job. Fault 404 for one that is not there, or no longer."""
        row = self._row(job)
        told: dict[str, Any] = {"id": job, "status": row["status"], "pictures": row["pictures"]}
        if row["status"] == "queued":
            told["ahead"] = self.store.ahead(row["number"])
        elif row["status"] == "running":
            told |= {name: value for name, value in self.live.items() if name in _LIVE and value is not None}
        else:
            told |= json.loads(row["outcome"]) or {}
            told["kept_until"] = _when(row["ended"] + self.keep)
        if row["status"] == "done":
            told["bytes"] = row["bytes"]
        if row["detail"] is not None:
            told["detail"] = row["detail"]
        return told

    def result(self, job: str) -> Path:
        """The zip of a job that is done. Fault 404 for no job, 409 for one that is not done."""
        row = self._row(job)
        if row["status"] != "done":
            said = row["detail"] or "wait until its status is done"
            raise Fault(409, f"the job is {row['status']} and has no result: {said}")
        return self.folder / str(row["id"]) / RESULT

    def delete(self, job: str) -> None:
        """End a job, whatever it does, and delete all of it. Fault 404 for no job."""
        key = self._row(job)["id"]
        self.store.delete(key)
        if self.process is not None and self.process[0] == key:
            kill(self.process[1])  # `computing` deletes the folder, after the process has ended
        else:
            remove(self.folder / key)
        self.tell()

    def watch(self, job: str) -> AsyncGenerator[dict[str, Any] | None, None]:
        """A job's state whenever it changes, until it ends; None every now and then.

        Fault 404 for no job, 503 for too many that watch.
        """
        self._row(job)
        if self._watchers >= _MOST_WATCHERS:
            raise Fault(503, f"{_MOST_WATCHERS} clients watch already; ask for the state instead")
        return self._watched(job)

    async def _watched(self, job: str) -> AsyncGenerator[dict[str, Any] | None, None]:
        self._watchers += 1
        try:
            last = None
            while True:
                news = self._news
                try:
                    now = self.state(job)
                except Fault:
                    yield {"id": job, "status": "deleted"}
                    return
                if now != last:
                    last = now
                    yield now
                if now["status"] in ENDED:
                    return
                try:
                    async with asyncio.timeout(_BEAT):
                        await news.wait()
                except TimeoutError:
                    yield None
        finally:
            self._watchers -= 1

    def counts(self) -> dict[str, int]:
        """Status -> number of jobs."""
        found = dict.fromkeys(("queued", "running", *ENDED), 0)
        for row in self.store.all():
            found[row["status"]] += 1
        return found

    def _sweep(self) -> None:
        """Delete what a killed service left: folders of uploads, and what ended jobs no longer need."""
        rows = {row["id"]: row for row in self.store.all()}
        for place in self.folder.iterdir():
            row = rows.get(place.name)
            if row is None and place.name.startswith(_PREFIX):
                remove(place)
            elif row is not None and row["status"] in ENDED:
                self.strip(row["id"])

    def strip(self, job: str) -> None:
        """Delete all of a job but its result."""
        for name in (ORIGINALS, COPIES):
            remove(self.folder / job / name)

    def used(self) -> int:
        """Bytes that the jobs take, with what may still arrive and the running job's copies, packed too."""
        return self.store.bytes() + sum(self._arriving.values()) + 2 * int(self.live.get("bytes", 0))

    def _row(self, job: str) -> sqlite3.Row:
        row = self.store.get(_key(job))
        if row is None or (row["ended"] is not None and row["ended"] + self.keep <= time.time()):
            raise Fault(404, "there is no such job, or no longer; its id may be wrong, or its time is over")
        return row

    def tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    @property
    def keep(self) -> float:
        return self.limits.keep * 3600


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _key(job: str) -> str:
    """The name of a job's folder and row, which does not give the id away."""
    return _PREFIX + hashlib.sha256(job.encode()).hexdigest()[:32]


def kill(process: asyncio.subprocess.Process) -> None:
    """End a process at once."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _to_the_end(work: Callable[[], T]) -> T:
    """Do `work` in a thread. Where this is cancelled, it ends after the work all the same."""
    done = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        raise
