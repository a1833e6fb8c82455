"""Computes jobs in a process of their own, one after the other, and deletes the old ones."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from unlikeness.files import remove
from unlikeness.serve.jobs import Jobs, kill
from unlikeness.serve.task import RESULT

__all__ = ["run"]

_log = logging.getLogger(__name__)

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from unlikeness.serve.task import main; main()"
_MOST_STARTS = 5
"""Services that may end while they run a job, until it counts as the reason."""


async def run(jobs: Jobs) -> None:
    """Compute jobs, one after the other, and delete old ones, until this is cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_always(_forget, jobs))
        group.create_task(_always(_compute, jobs))


async def _always(turn: Callable[[Jobs], Awaitable[None]], jobs: Jobs) -> None:
    while True:
        try:
            await turn(jobs)
        except Exception:  # noqa: BLE001 - the next jobs have nothing to do with it
            _log.exception("the jobs stand still for a minute")
            await asyncio.sleep(60)


async def _forget(jobs: Jobs) -> None:
    """Delete the jobs whose time is over."""
    now = time.time()
    for row in jobs.store.all():
        if row["ended"] is not None and row["ended"] + jobs.keep <= now:
            jobs.store.delete(row["id"])
            remove(jobs.folder / row["id"])
    await asyncio.sleep(min(60.0, max(0.1, jobs.keep / 4)))


async def _compute(jobs: Jobs) -> None:
    """Compute the next job, as soon as there is one."""
    jobs.more.clear()
    row = jobs.store.next()
    if row is None:
        await jobs.more.wait()
        return
    job = row["id"]
    jobs.live = {}
    jobs.store.begin(job)
    jobs.tell()
    outcome: dict[str, Any] | None = None
    fault: str | None = "the service ended five times while it ran this job; send fewer pictures"
    if row["starts"] < _MOST_STARTS:
        try:
            outcome, fault = await _done(jobs, job, json.loads(row["task"]))
        except asyncio.CancelledError:
            jobs.store.pause(job)
            raise
        finally:
            jobs.live = {}
    if jobs.store.get(job) is None:
        remove(jobs.folder / job)
    elif outcome is not None:
        jobs.store.end(job, "done", (jobs.folder / job / RESULT).stat().st_size, outcome=outcome)
        jobs.strip(job)
    else:
        jobs.store.end(job, "failed", 0, detail=fault)
        remove(jobs.folder / job)
    jobs.tell()


async def _done(
    jobs: Jobs, job: str, task: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, str | None]:
    """The outcome of a job, or why there is none."""
    seconds = jobs.limits.job_seconds
    trace = os.environ.get("UNLIKENESS_TRACEBACK", "0") not in ("", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _PROGRAM, *sys.path, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=None if trace else asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    jobs.process = job, process
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(seconds):
            process.stdin.write(json.dumps({**task, "folder": str(jobs.folder / job)}).encode() + b"\n")
            async for line in process.stdout:
                told = json.loads(line)
                if "outcome" in told or "fault" in told:
                    return told.get("outcome"), told.get("fault")
                jobs.live = told
                jobs.tell()
                if jobs.used() > jobs.limits.disk:
                    return None, "the disk of the jobs is full; try again later, or send fewer pictures"
    except TimeoutError:
        return None, f"it takes longer than {seconds} seconds; send fewer pictures"
    else:
        return None, "there is a fault in the program, or it had too little memory; send fewer pictures"
    finally:
        jobs.process = None
        kill(process)
        await process.wait()
