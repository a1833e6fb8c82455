"""Progress of long work.

Library code takes a `Progress`. `Silent()` is the default. The command line passes what `on_stderr()` yields.
A notebook or a server can pass its own.

    def train(..., progress: Progress | None = None) -> ...:
        progress = progress or Silent()
        progress.start(steps, "training", "step", initial=resumed_step)
        for ...:
            progress.advance(loss=loss)
        progress.close()
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from unlikeness.endings import undone_by

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

__all__ = ["Bar", "Lines", "Meter", "Progress", "Silent", "format_seconds", "on_stderr"]


class Progress(Protocol):
    """One task after another: `start`, any number of `advance`, `close`. `start` closes the task before."""

    def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
        """Begin a task of `total` units (None: unknown), of which an earlier run did `initial`."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more units. `figures` (a loss, a count) are shown beside the rate."""

    def close(self) -> None:
        """End the task, completed or not. Without an open task this does nothing."""


class Silent:
    """Shows nothing."""

    def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
        return

    def advance(self, n: int = 1, **figures: float) -> None:
        return

    def close(self) -> None:
        return


class Meter:
    """Counts units and estimates the rate [units/s] over the last `window` seconds, from `clock` [s]."""

    def __init__(
        self,
        total: int | None,
        *,
        initial: int = 0,
        window: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.done = initial
        self.initial = initial
        self._window = window
        self._clock = clock
        self._began = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._began, initial)])

    def advance(self, n: int) -> None:
        if not n:  # only figures: another entry would push the last unit out of the window
            return
        now = self._clock()
        self.done += n
        self._marks.append((now, self.done))
        # One mark older than the window stays, so that a unit slower than the window still has a rate.
        while len(self._marks) > 2 and self._marks[1][0] < now - self._window:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Units per second; None before anything is done."""
        (first, done), (last, now_done) = self._marks[0], self._marks[-1]
        return (now_done - done) / (last - first) if last > first and now_done > done else None

    @property
    def seconds_left(self) -> float | None:
        rate = self.rate
        return None if rate is None or self.total is None else max(self.total - self.done, 0) / rate

    @property
    def elapsed(self) -> float:
        return self._clock() - self._began

    def summary(self, unit: str, figures: Mapping[str, float]) -> str:
        """'3.1 step/s, 2 min 05 s left, loss 0.123'; rates below one a second are given in s/unit."""
        parts = []
        rate = self.rate
        if rate is not None:
            parts.append(f"{rate:.3g} {unit}/s" if rate >= 1 else f"{1 / rate:.3g} s/{unit}")
        left = self.seconds_left
        if left is not None and self.total is not None and self.done < self.total:
            parts.append(f"{format_seconds(left)} left")
        parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items()]
        return ", ".join(parts)


def format_seconds(seconds: float) -> str:
    """42 s, 2 min 05 s, 3 h 07 min."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Lines:
    """Plain lines for logs and pipes: at most one in `every` seconds, and one at the end."""

    def __init__(
        self, stream: TextIO, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._every = every
        self._clock = clock
        self._meter: Meter | None = None
        self._description = ""
        self._unit = "it"
        self._figures: dict[str, float] = {}
        self._next = 0.0

    def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
        self.close()
        self._meter = Meter(total, initial=initial, clock=self._clock)
        self._description, self._unit, self._figures = description, unit, {}
        self._next = self._clock() + self._every

    def advance(self, n: int = 1, **figures: float) -> None:
        if self._meter is None:
            return
        self._meter.advance(n)
        self._figures.update(figures)
        if self._clock() >= self._next:
            self._say(self._meter.summary(self._unit, self._figures))
            self._next = self._clock() + self._every

    def close(self) -> None:
        if self._meter is None:
            return
        took = f"{format_seconds(self._meter.elapsed)} in all"
        summary = self._meter.summary(self._unit, self._figures)
        self._say(f"{summary}, {took}" if summary else took)
        self._meter = None

    def _say(self, text: str) -> None:
        assert self._meter is not None
        of = "" if self._meter.total is None else f"/{self._meter.total}"
        self._stream.write(f"{self._description}: {self._meter.done}{of} {self._unit}, {text}\n")
        self._stream.flush()


class Bar:
    """A bar on a terminal, drawn by rich."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: RichBars | None = None
        self._task: TaskID | None = None
        self._shown: AbstractContextManager[None] | None = None
        self._meter = Meter(None)
        self._unit = "it"
        self._figures: dict[str, float] = {}

    def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichBars

        self.close()
        self._meter, self._unit, self._figures = Meter(total, initial=initial), unit, {}
        self._bars = RichBars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[summary]}", markup=False),
            console=Console(file=self._stream),
        )
        self._task = self._bars.add_task(description, total=total, completed=initial, summary="")
        self._shown = undone_by(self._show_cursor)
        self._shown.__enter__()
        self._bars.start()

    def advance(self, n: int = 1, **figures: float) -> None:
        if self._bars is None or self._task is None:
            return
        self._meter.advance(n)
        self._figures.update(figures)
        self._bars.update(
            self._task, completed=self._meter.done, summary=self._meter.summary(self._unit, self._figures)
        )

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        if self._shown is not None:
            self._shown.__exit__(None, None, None)
        self._bars = self._task = self._shown = None

    def _show_cursor(self) -> None:
        """Show the cursor again if the process ends while the bar is open."""
        os.write(self._stream.fileno(), b"\x1b[?25h\n")


@contextmanager
def on_stderr(*, quiet: bool = False) -> Iterator[Progress]:
    """The command line's progress: a bar on a terminal, lines elsewhere, nothing if `quiet`."""
    progress: Progress
    if quiet:
        progress = Silent()
    elif sys.stderr.isatty():
        progress = Bar(sys.stderr)
    else:
        progress = Lines(sys.stderr)
    try:
        yield progress
    finally:
        progress.close()
