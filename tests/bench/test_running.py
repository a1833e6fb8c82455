"""Runs: only missing cells, stops, failures, processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.bench.conftest import SMALL, cut_down, written
from torch import Tensor

from unlikeness.bench import measuring, running
from unlikeness.bench.suites import parse
from unlikeness.bench.work import Shared
from unlikeness.cli import main
from unlikeness.protect.methods.noise import Noise


def cells(output: Path) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted((output / "cells").glob("*.json"))}


def figures(output: Path) -> dict[str, Any]:
    return {name: one["figures"] for name, one in cells(output).items()}


def test_a_cell_answers_both_questions(made: Path) -> None:
    found = {one["cell"]["defence"]["name"] + one["cell"]["purifier"]: one for one in cells(made).values()}
    assert set(found) == {"nonenone", "ridnone", "ridjpeg:75"}
    protected = found["ridnone"]
    assert set(protected["figures"]["s"]) == {"value", "low", "high"}
    spoiled = {one["name"]: one for one in protected["figures"]["spoiled"]}
    assert 0 <= spoiled["unreadable"]["value"] <= 1
    assert spoiled["unreadable"]["clean"] is not None
    assert {"FID", "KID"} <= set(spoiled)
    assert 0 < protected["figures"]["visible"]["linf"] <= 8.01
    assert "visible" not in found["nonenone"]["figures"]
    assert protected["identity"]["defence"]["settings"]["budget"] == 8
    assert len(protected["identity"]["defence"]["files"]) == 1  # the digest of the network's weights
    assert protected["attacker"]["steps"] == 1
    assert protected["versions"]["torch"]
    assert len(list((made / "pictures").glob("*.png"))) == 3


def test_what_is_there_is_not_computed_again(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(made, output)
    shutil.rmtree(output / "work")  # parts can be made again
    lost = next(path for path in (output / "cells").iterdir() if "jpeg" in path.name)
    before = {path.name: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    lost.unlink()
    run = ["bench", "run", str(written(tmp_path, SMALL)), "--output", str(output), "-q"]
    assert main(run) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {lost.name}
    assert figures(output) == figures(made)


def test_a_stopped_run_continues_and_ends_as_an_uninterrupted_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, whole = 0, Shared.outcome

    def stopped(self: Shared, *given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return whole(self, *given)

    run = ["bench", "run", str(written(tmp_path, SMALL)), "--output", str(tmp_path / "out"), "-q"]
    with monkeypatch.context() as patched:
        patched.setattr(Shared, "outcome", stopped)
        assert main(run) == 130
    assert len(cells(tmp_path / "out")) == 1
    assert main(run) == 0
    assert figures(tmp_path / "out") == figures(made)


def test_changed_code_makes_cells_missing_unless_kept(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = parse("small", SMALL)
    shared = Shared(suite, made)
    assert not running.state(suite, shared).missing
    monkeypatch.setattr(running, "code_of", lambda cell, suite: "0123456789ab")
    assert len(running.state(suite, shared).missing) == 3
    kept = running.state(suite, shared, keep=True)
    assert not kept.missing
    assert kept.others == 3
    assert "3 were made by other code" in kept.line(suite)
    other = parse("small", {**SMALL, "seeds": [1]})
    assert len(running.state(other, Shared(other, made), keep=True).missing) == 3


def test_a_failing_cell_stops_nothing_and_is_tried_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(made, output)
    content = {**SMALL, "grids": [*SMALL["grids"], {"defences": ["noise"], "attackers": ["paper"]}]}
    run = ["bench", "run", str(written(tmp_path, content)), "--output", str(output)]

    def broken(self: Noise, images: Tensor, *_: object) -> Tensor:
        raise RuntimeError("it fell over")

    with monkeypatch.context() as patched:
        patched.setattr(Noise, "perturb", broken)
        assert main(run) == 1
    said = capsys.readouterr()
    assert "noise, 8/255, paper, person-0: failed, RuntimeError: it fell over" in said.err
    assert "3 of 4 cells" in said.out
    (one,) = [one for one in cells(output).values() if one["status"] == "failed"]
    assert one["sentence"] == "RuntimeError: it fell over"
    assert main(["bench", "report", str(output)]) == 0
    assert "failed, 1 cells: RuntimeError: it fell over" in capsys.readouterr().out
    assert main(run) == 0
    assert "1 missing, 1 of them failed before" in capsys.readouterr().err
    assert all(one["status"] == "done" for one in cells(output).values())


def test_a_part_that_fails_is_tried_once_for_all_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = parse("s", {**SMALL, "grids": [{"defences": ["rid"], "attackers": ["paper", "lora-4"]}]})
    shared = Shared(suite, tmp_path)
    tried: list[str] = []

    class Failing(running.Here):
        def submit(self, task: running.Task) -> None:
            tried.append(task.kind)
            self._ended = task, "no" if task.kind == "part" else None

    monkeypatch.setattr(measuring, "failed", lambda cell, shared, sentence: None)
    now = running.state(suite, shared)
    assert running.run(suite, shared, Failing(shared), now, report=lambda _: None) == 2
    assert tried == ["cell", "cell", "part"]  # the two controls, and the part of the others


@pytest.mark.slow  # each process imports torch
def test_processes_share_parts_and_one_that_is_killed_costs_its_own_cell(
    made: Path, tmp_path: Path
) -> None:
    suite = parse("small", SMALL)
    shared = Shared(suite, tmp_path)
    killed: list[int] = []

    class Killing(running.Processes):
        def submit(self, task: running.Task) -> None:
            super().submit(task)
            if task.cell.purifier != "none" and not killed:
                worker = next(one for one in self._workers if one.task is task)
                killed.append(int(worker.process.pid or 0))
                os.kill(killed[0], signal.SIGKILL)

    pool = Killing(suite, tmp_path, 2)
    try:
        for failures in (1, 0):
            now = running.state(suite, shared)
            assert running.run(suite, shared, pool, now, report=lambda _: None) == failures
    finally:
        pool.close()
    assert killed
    assert not any(one.process.is_alive() for one in pool._workers)
    near(figures(tmp_path), figures(made))


@pytest.mark.slow  # a cluster takes seconds to start
def test_a_ray_cluster_of_two_workers_survives_the_loss_of_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    from unlikeness.bench.cluster import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # its own 15 starves on a busy machine
    suite = parse("small", SMALL)
    shared = Shared(suite, tmp_path)
    killed: list[int] = []

    class Killing(Cluster):
        def next(self) -> tuple[running.Task, str | None]:
            until = time.monotonic() + 60
            while not killed and time.monotonic() < until:
                for one in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):  # it ends just now
                        if not killed and "_do" in " ".join(one.cmdline()):
                            one.kill()
                            killed.append(one.pid)
                time.sleep(0.2)
            return super().next()

    pool = Killing(suite, tmp_path, "local", most=2, device="cpu")
    try:
        assert pool.workers == 2
        now = running.state(suite, shared)
        assert running.run(suite, shared, pool, now, report=lambda _: None) == 0
    finally:
        pool.close()
    assert killed
    near(figures(tmp_path), figures(made))


def near(found: dict[str, Any], other: dict[str, Any]) -> None:
    """The same cells, with nearly the same s: another number of threads rounds otherwise."""
    assert set(found) == set(other)
    for name, one in found.items():
        assert one["s"]["value"] == pytest.approx(other[name]["s"]["value"], abs=0.02)


@pytest.mark.slow  # seven attacks, and an immunization
def test_the_smoke_suite_cut_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = cut_down("smoke")
    run = ["bench", "run", str(written(tmp_path, content, "smoke")), "--output", str(tmp_path / "out"), "-q"]
    assert main(run) == 0
    assert "20 of 20 cells" in capsys.readouterr().out
    assert main(["bench", "report", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "s against the budget" in page
    assert "s against the attacker&#39;s steps" in page
