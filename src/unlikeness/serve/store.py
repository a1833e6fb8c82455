"""The queue of jobs in SQLite: the settings of each, and how it ended. No picture or file name is in it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from unlikeness.errors import UnlikenessError

__all__ = ["ENDED", "Status", "Store"]

Status = Literal["queued", "running", "done", "failed"]
ENDED = ("done", "failed")
NAME = "jobs.sqlite"
_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
    task TEXT NOT NULL, pictures INTEGER NOT NULL, bytes INTEGER NOT NULL, made REAL NOT NULL, ended REAL,
    starts INTEGER NOT NULL DEFAULT 0, outcome TEXT, detail TEXT
)"""


class Store:
    """The jobs of one folder. For one thread at a time.

    UnlikenessError, from any method, if the file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        with self._told():
            self.path.touch(0o600)
            self._base = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._base.row_factory = sqlite3.Row
            self._base.execute("PRAGMA secure_delete = ON")
            version = int(self._base.execute("PRAGMA user_version").fetchone()[0])
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError("it is of another version")
            self._base.execute(_TABLE)
            self._base.execute(f"PRAGMA user_version = {_VERSION}")
            self._base.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running'")

    def close(self) -> None:
        self._base.close()

    def add(self, job: str, task: Mapping[str, Any], pictures: int, size: int) -> None:
        """Queue a job. size: bytes that its files take."""
        self._run(
            "INSERT INTO jobs (id, status, task, pictures, bytes, made) VALUES (?, 'queued', ?, ?, ?, ?)",
            job, json.dumps(task), pictures, size, time.time(),
        )  # fmt: skip

    def begin(self, job: str) -> None:
        """Mark a job as running, once more."""
        self._run("UPDATE jobs SET status = 'running', starts = starts + 1 WHERE id = ?", job)

    def pause(self, job: str) -> None:
        """Queue a running job again, whose service ends in order: that is not held against it."""
        self._run("UPDATE jobs SET status = 'queued', starts = starts - 1 WHERE id = ?", job)

    def end(
        self, job: str, status: Status, size: int, *, outcome: Mapping[str, Any] | None = None,
        detail: str | None = None,
    ) -> None:  # fmt: skip
        """Mark a job as ended. size: bytes of what is left of it. detail: why it failed."""
        self._run(
            "UPDATE jobs SET status = ?, ended = ?, bytes = ?, outcome = ?, detail = ? WHERE id = ?",
            status, time.time(), size, json.dumps(outcome), detail, job,
        )  # fmt: skip

    def delete(self, job: str) -> None:
        self._run("DELETE FROM jobs WHERE id = ?", job)

    def get(self, job: str) -> sqlite3.Row | None:
        return self._one("SELECT * FROM jobs WHERE id = ?", job)

    def all(self) -> list[sqlite3.Row]:
        """All jobs, in the order in which they came."""
        with self._told():
            return self._base.execute("SELECT * FROM jobs ORDER BY number").fetchall()

    def next(self) -> sqlite3.Row | None:
        """The job that came first of those that have not ended."""
        return self._one("SELECT * FROM jobs WHERE ended IS NULL ORDER BY number LIMIT 1")

    def ahead(self, number: int) -> int:
        """How many jobs are done before this one."""
        found = self._one("SELECT COUNT(*) FROM jobs WHERE ended IS NULL AND number < ?", number)
        assert found is not None
        return int(found[0])

    def waiting(self) -> int:
        """How many jobs wait or run."""
        return self.ahead(1 << 62)

    def bytes(self) -> int:
        """Bytes of all jobs together."""
        found = self._one("SELECT COALESCE(SUM(bytes), 0) FROM jobs")
        assert found is not None
        return int(found[0])

    def _one(self, command: str, *values: object) -> sqlite3.Row | None:
        with self._told():
            found: sqlite3.Row | None = self._base.execute(command, values).fetchone()
            return found

    def _run(self, command: str, *values: object) -> None:
        with self._told():
            self._base.execute(command, values)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UnlikenessError(
                f"{self.path} cannot be used ({error}); free some space, or name another folder with --jobs"
            ) from error
