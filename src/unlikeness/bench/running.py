"""Run the missing cells of a suite: here, in several processes, or on a Ray cluster (`cluster`).

Only missing cells are computed; so a run that was killed continues when it is started again. A shared part is
made by one task, before the cells that need it. A cell that fails is recorded with its sentence, the others
go on, and the next run tries it again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from unlikeness.bench.cells import Cell, code_of, expand, identity, name_of, part_key
from unlikeness.bench.suites import Suite, parse
from unlikeness.endings import follow_parent, undone_by
from unlikeness.errors import UnlikenessError
from unlikeness.files import write_text
from unlikeness.foreign import UnreadableError, read_json
from unlikeness.progress import Progress, Silent, format_seconds

if TYPE_CHECKING:
    from unlikeness.bench.work import Shared

__all__ = ["CELLS", "Here", "Pool", "Processes", "State", "Task", "perform", "run", "state"]

CELLS = "cells"
MOST = 8 << 20
"""Bytes of a cell's record at most."""


@dataclass(frozen=True)
class Task:
    """A cell to compute, or the part that it shares with others. needs: keys of tasks that come first."""

    key: str
    kind: Literal["part", "cell"]
    cell: Cell
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class State:
    """Where a suite stands in a folder.

    missing: cells without a record of this code; failed ones count as missing. others: how many of the
    finished cells other code has made, which `keep` lets count.
    """

    cells: tuple[Cell, ...]
    missing: tuple[Cell, ...]
    tasks: tuple[Task, ...]
    failed: int
    others: int
    seconds: Mapping[str, float] = field(default_factory=dict)

    def line(self, suite: Suite, workers: int = 1) -> str:
        """The numbers, and the time that is left."""
        failed = f", {self.failed} of them failed before" if self.failed else ""
        others = f"; {self.others} were made by other code" if self.others else ""
        return (
            f"{suite.name}: {len(self.cells)} cells, {len(self.missing)} missing{failed}{others}; "
            f"{self._time(suite, workers)}"
        )

    def _time(self, suite: Suite, workers: int) -> str:
        if not self.missing:
            return "nothing is left to do"
        known = self.seconds.values()
        each = sum(known) / len(known) if known else suite.plan.cell_seconds
        if not each:
            return "no cell is measured yet, so the time is unknown"
        models = sum(one.kind == "part" and one.cell.defence.kind == "model" for one in self.tasks)
        total = each * len(self.missing) + suite.plan.model_seconds * models
        source = f"from {len(known)} measured cells" if known else "by the suite's own estimate"
        return f"about {format_seconds(total / workers)} with {workers} at a time ({source})"


def state(suite: Suite, shared: Shared, *, keep: bool = False) -> State:
    """What is there and what is missing. keep: cells that other code has made are not missing."""
    folder = shared.output / CELLS
    there: dict[str, list[str]] = {}
    if folder.is_dir():
        for file in sorted(folder.glob("*.json")):
            there.setdefault(file.stem.rpartition("-")[0], []).append(file.stem)
    cells, missing, failed, others, seconds = expand(suite), [], 0, 0, {}
    for cell in cells:
        name = name_of(cell, identity(cell, suite, shared), code_of(cell, suite))
        alike = there.get(name.rpartition("-")[0], [])
        own = [one for one in alike if one == name] or (alike if keep else [])
        records = [read_cell(folder / f"{one}.json") for one in own]
        done = [one for one in records if one is not None and one.get("status") == "done"]
        if done:
            others += name not in own
            seconds[name] = float(done[-1].get("seconds") or 0.0)
        else:
            failed += bool(records)
            missing.append(cell)
    return State(tuple(cells), tuple(missing), tuple(tasks(suite, shared, missing)), failed, others, seconds)


def read_cell(path: Path) -> dict[str, Any] | None:
    """A cell's record; None for a file that is none."""
    try:
        found = read_json(path, most=MOST)
    except UnreadableError:
        return None
    return found if isinstance(found, dict) and "cell" in found else None


def tasks(suite: Suite, shared: Shared, missing: Sequence[Cell]) -> list[Task]:
    """The cells, each after its control and after the part that it shares."""
    keys = {cell: f"cell {i}" for i, cell in enumerate(missing)}
    parts: dict[str, Task] = {}
    found = []
    for cell in missing:
        needs = {keys[cell.control]} if cell.control in keys else set()
        if cell.defence.kind != "none" and not shared.has(cell):
            part = f"part {json.dumps(part_key(cell, suite, shared), sort_keys=True)}"
            if part not in parts:
                parts[part] = Task(part, "part", cell)
                found.append(parts[part])
            needs.add(part)
        found.append(Task(keys[cell], "cell", cell, frozenset(needs)))
    return found


class Pool(Protocol):
    """Something that performs tasks."""

    @property
    def free(self) -> bool:
        """Whether it takes another task now."""

    def submit(self, task: Task) -> None: ...

    def next(self) -> tuple[Task, str | None]:
        """Wait for a task that has ended, and for what is said if it failed."""

    def close(self) -> None: ...


def run(
    suite: Suite, shared: Shared, pool: Pool, now: State, *, report: Callable[[str], None],
    progress: Progress | None = None,
) -> int:  # fmt: skip
    """Perform the tasks of `now`; the number of cells that failed."""
    from unlikeness.bench.measuring import failed as write_failed

    shown = progress or Silent()
    waiting, done, broken = list(now.tasks), set[str](), dict[str, str]()
    running = failures = 0
    shown.start(len(now.cells), suite.name, "cell", initial=len(now.cells) - len(now.missing))

    def ended(task: Task, sentence: str | None) -> None:
        nonlocal failures
        if sentence is None:
            done.add(task.key)
        else:
            broken[task.key] = sentence
        if task.kind == "cell":
            if sentence is not None:
                failures += 1
                write_failed(task.cell, shared, sentence)
                report(f"{_title(task.cell, shared)}: failed, {sentence}")
            shown.advance(1)

    while waiting or running:
        for task in list(waiting):
            if wrong := [broken[key] for key in sorted(task.needs) if key in broken]:
                waiting.remove(task)
                ended(task, wrong[0])
            elif task.needs <= done and pool.free:
                waiting.remove(task)
                pool.submit(task)
                running += 1
            if not pool.free:
                break
        if running:
            task, sentence = pool.next()
            running -= 1
            ended(task, sentence)
    shown.close()
    return failures


def _title(cell: Cell, shared: Shared) -> str:
    return f"{cell.defence.title}, {cell.attacker}, {shared.title(cell.subject)}"


def perform(task: Task, shared: Shared) -> str | None:
    """Do a task; what to say if it failed."""
    from unlikeness.bench.measuring import measure

    try:
        if task.kind == "part":
            shared.make(task.cell)
        else:
            measure(task.cell, shared)
    except UnlikenessError as error:
        return str(error)
    except (MemoryError, RuntimeError, ArithmeticError, ValueError, TypeError, LookupError) as error:
        # One faulty method, of another package too, does not stop the others.
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


class Here:
    """One task at a time, in this process."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._ended: tuple[Task, str | None] | None = None

    @property
    def free(self) -> bool:
        return self._ended is None

    def submit(self, task: Task) -> None:
        self._ended = task, perform(task, self.shared)

    def next(self) -> tuple[Task, str | None]:
        assert self._ended is not None
        ended, self._ended = self._ended, None
        return ended

    def close(self) -> None:
        return


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    task: Task | None = None


class Processes:
    """Several tasks at a time, each in a process with its share of the threads.

    A process that ends, killed for its memory or crashed, costs its own task; another takes its place.
    """

    def __init__(self, suite: Suite, output: Path, count: int, device: str = "auto") -> None:
        self._texts = suite.name, dict(suite.texts), str(output), device
        self._threads = max((os.cpu_count() or 1) // count, 1)
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._started() for _ in range(count)]
        self._undone = undone_by(self.close)
        self._undone.__enter__()

    def _started(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, *self._texts, self._threads), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    @property
    def free(self) -> bool:
        return any(one.task is None for one in self._workers)

    def submit(self, task: Task) -> None:
        worker = next(one for one in self._workers if one.task is None)
        if not worker.process.is_alive():
            self._workers.remove(worker)
            worker = self._started()
            self._workers.append(worker)
        worker.task = task
        worker.connection.send((task.kind, task.cell.as_record()))

    def next(self) -> tuple[Task, str | None]:
        busy = [one for one in self._workers if one.task is not None]
        ready = wait([*(one.connection for one in busy), *(one.process.sentinel for one in busy)])
        worker = next(one for one in busy if one.connection in ready or one.process.sentinel in ready)
        task, worker.task = worker.task, None
        assert task is not None
        try:
            sentence: str | None = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._workers.remove(worker)
            self._workers.append(self._started())
            sentence = (
                f"its process ended (exit status {worker.process.exitcode}), perhaps for lack of memory; "
                "give fewer --workers"
            )
        return task, sentence

    def close(self) -> None:
        for one in self._workers:
            one.process.kill()
        for one in self._workers:
            one.process.join()


def _serve(
    connection: Connection, name: str, texts: dict[str, Any], output: str, device: str, threads: int
) -> None:
    """A worker: perform tasks until the other end closes."""
    follow_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    from unlikeness.bench.work import Shared

    torch.set_num_threads(threads)
    shared = Shared(parse(name, texts), Path(output), device)
    while True:
        try:
            kind, record = connection.recv()
        except EOFError:
            return
        connection.send(perform(Task("", kind, Cell.of(record)), shared))


def prepare(suite: Suite, output: Path) -> None:
    """The folder's own files: what ran, and that `work` is nothing to keep."""
    import yaml

    write_text(output / "suite.yaml", yaml.safe_dump(dict(suite.texts), sort_keys=False, allow_unicode=True))
    write_text(output / "work" / ".gitignore", "*\n")
