"""Cells on a Ray cluster. Each machine needs this package, and OUTPUT at the same path (shared files).

A task whose worker is lost is given to another worker: parts and records are written in one move, and what a
lost worker has left of a training is continued.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlikeness.bench.cells import Cell
from unlikeness.bench.running import Task, perform
from unlikeness.bench.suites import Suite, parse
from unlikeness.errors import UnlikenessError
from unlikeness.extras import check_extra

__all__ = ["Cluster"]

_TRIES = 3
"""Further tries of a task whose worker is lost."""


class Cluster:
    """Tasks as Ray tasks, as many at a time as the cluster has cores (or GPUs) for.

    Args:
        address: of a running cluster ("auto", "ray://host:10001"), or "local" for one on this machine.
        most: tasks at a time, which share its cores and GPUs; None: one for each GPU, else for each core.
    """

    def __init__(
        self, suite: Suite, output: Path, address: str, *, most: int | None = None, device: str = "auto"
    ) -> None:
        check_extra("ray", "--ray")
        import ray

        self._ray: Any = ray
        try:
            ray.init(
                address=address, log_to_driver=False, include_dashboard=False if address == "local" else None
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UnlikenessError(
                f"the Ray cluster {address} cannot be reached ({error}); start one with `ray start --head`, "
                "or give --ray local"
            ) from error
        total = ray.cluster_resources()
        gpus, cores = (0 if device == "cpu" else total.get("GPU", 0)), int(total.get("CPU", 1))
        self._most = most or int(gpus) or cores
        each = max(cores // self._most, 1)
        self._suite = ray.put((suite.name, dict(suite.texts), str(output.resolve()), device, each))
        self._do = ray.remote(num_cpus=each, num_gpus=gpus / self._most, max_retries=_TRIES)(_do)
        self._running: dict[Any, Task] = {}

    @property
    def workers(self) -> int:
        """Tasks at a time."""
        return self._most

    @property
    def free(self) -> bool:
        return len(self._running) < self._most

    def submit(self, task: Task) -> None:
        self._running[self._do.remote(self._suite, task.kind, task.cell.as_record())] = task

    def next(self) -> tuple[Task, str | None]:
        (reference, *_), _ = self._ray.wait(list(self._running), num_returns=1)
        task = self._running.pop(reference)
        try:
            sentence: str | None = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            sentence = f"its workers were lost {_TRIES + 1} times ({type(error).__name__})"
        return task, sentence

    def close(self) -> None:
        self._ray.shutdown()


_shared: dict[tuple[str, str], Any] = {}
"""In a worker: what its tasks share."""


def _do(given: tuple[str, dict[str, Any], str, str, int], kind: Any, record: dict[str, Any]) -> str | None:
    import json

    import torch

    from unlikeness.bench.work import Shared

    name, texts, output, device, cores = given
    torch.set_num_threads(cores)
    key = (json.dumps(texts, sort_keys=True), output)
    if key not in _shared:
        _shared.clear()
        _shared[key] = Shared(parse(name, texts), Path(output), device)
    return perform(Task("", kind, Cell.of(record)), _shared[key])
