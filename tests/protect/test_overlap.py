"""A large picture is alone in memory, and nothing waits for ever."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from tests.protect.folders import run
from tests.protect.test_tiles import write

from unlikeness.pictures import Edit
from unlikeness.protect.files import worker
from unlikeness.protect.methods.noise import Noise
from unlikeness.protect.tiling import batches
from unlikeness.protect.tiling.batches import Room


def test_others_wait_for_room_or_until_all_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "HELD_PIXELS", 100)
    room = Room(batches.full)
    assert room.wait()
    room.enter(30)
    room.enter(30)
    assert room.wait()  # for one of 30, beside two of 30
    room.enter(40)
    told: list[bool] = []
    waiting = [threading.Thread(target=lambda: told.append(room.wait())) for _ in range(2)]
    waiting[0].start()
    waiting[0].join(0.05)
    assert told == []
    room.leave(40)
    waiting[0].join(5)
    assert told == [True]
    room.enter(51)
    waiting[1].start()
    room.close()
    waiting[1].join(5)
    assert told == [True, False]


def test_large_pictures_are_opened_one_after_the_other(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        write(tmp_path / "in" / f"{number}.png", 40, 30, seed=number)
    write(tmp_path / "in" / "small.png", 8, 8)
    monkeypatch.setattr(batches, "HELD_PIXELS", 1000)
    held: list[str] = []
    most = 0
    opened, finished = worker.Worker.open, worker.Worker.finish

    def open_(self: Any, target: Any) -> Any:
        nonlocal most
        held.append(target.name)
        most = max(most, len(held))
        return opened(self, target)

    def finish(self: Any, work: Any) -> Any:
        done = finished(self, work)
        held.remove(work.target.name)
        return done

    monkeypatch.setattr(worker.Worker, "open", open_)
    monkeypatch.setattr(worker.Worker, "finish", finish)
    # Tiles that wait for a batch to fill up are no reason to wait for ever.
    outcome = run(tmp_path / "in", tmp_path / "out", noise, batch_size=30)
    assert len(outcome.protected) == 5
    assert most == 1


def test_a_picture_goes_from_memory_as_soon_as_it_is_written(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        write(tmp_path / "in" / f"{number}.png", 40, 30, seed=number)
    made: list[weakref.ref[Edit]] = []

    class Watched(Edit):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(weakref.ref(self))

    alive: list[int] = []
    finished = worker.Worker.finish

    def finish(self: Any, work: Any) -> Any:
        done = finished(self, work)
        alive.append(made[len(alive)]() is not None)
        return done

    monkeypatch.setattr(worker, "Edit", Watched)
    monkeypatch.setattr(worker.Worker, "finish", finish)
    gc.disable()  # it comes now and then, long after the memory was needed
    try:
        assert len(run(tmp_path / "in", tmp_path / "out", noise).protected) == 4
    finally:
        gc.enable()
    assert alive == [False] * 4


def test_a_failure_while_others_wait_ends_the_run(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png", 40, 30, seed=number)
    monkeypatch.setattr(batches, "HELD_PIXELS", 1000)

    def failing(*args: Any, **options: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(Noise, "perturb", failing)
    with pytest.raises(RuntimeError, match="broken"):
        run(tmp_path / "in", tmp_path / "out", noise)
