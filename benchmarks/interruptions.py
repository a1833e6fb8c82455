"""Runs that are killed, that meet another run, or that fill the disk: what they leave, and where they end.

Every job is a command of `unlikeness` in a process of its own. An uninterrupted run of it is the reference.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["JOBS", "Job", "disk_full", "killed", "two_at_once"]

_TIMEOUT = 900.0
"""Seconds after which a run counts as hanging."""
_UNSTABLE = frozenset({"seconds", "created", "computed", "date", "began", "resumed_at"})
"""Fields of records that tell when, how fast, or after which interruption something was made."""

_OFTEN = """
import sys
from unlikeness import training
from unlikeness.immunize import run
training.train.__kwdefaults__["every"] = 2
run.EVERY = 1
from unlikeness.cli import main
sys.exit(main())
"""
"""`unlikeness`, with a checkpoint every second step: trainings of seconds would end before their first."""

Command = Callable[[Path, Path], list[str]]


@dataclass(frozen=True)
class Job:
    """A command that can be interrupted. arguments: of the pictures' folder and of the output."""

    name: str
    arguments: Command
    pictures: int


def _protect(pictures: Path, output: Path) -> list[str]:
    return ["protect", str(pictures), "-o", str(output), "--method", "advdm", "--steps", "2"]


def _personalize(pictures: Path, output: Path) -> list[str]:
    settings = ["--method", "lora", "--steps", "30", "--prior-weight", "0"]
    state = str(output.with_suffix(".state"))
    images = ["--images", str(pictures), "--class-noun", "dog"]
    return ["personalize", *images, "--output", str(output), *settings, "--checkpoint", state]


def _immunize(pictures: Path, output: Path) -> list[str]:
    settings = ["--method", "apdm", "--outer-steps", "4", "--inner-steps", "1", "--set", "class_images=4"]
    images = ["--images", str(pictures), "--class-noun", "dog"]
    return ["immunize", *images, "--output", str(output), *settings, "--set", "class_steps=2"]


def _train_protector(pictures: Path, output: Path) -> list[str]:
    few = ["renders=2", "leaves=2"]
    small = ["fine=4", "middle=6", "coarse=8"]
    settings = [word for setting in few for word in ("--set", setting)]
    settings += [word for setting in small for word in ("--network", setting)]
    place = ["--output", str(output.with_suffix(".safetensors")), "--work", str(output.with_suffix(".work"))]
    settings += ["--steps", "8", "--batch-size", "2"]
    return ["train-protector", "--images", str(pictures), *place, *settings]


JOBS = (
    Job("protect", _protect, 8),
    Job("personalize (LoRA)", _personalize, 3),
    Job("immunize", _immunize, 3),
    Job("train-protector", _train_protector, 3),
)


def _start(arguments: Sequence[str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, *(["-m", "unlikeness"] if arguments[0] == "protect" else ["-c", _OFTEN])]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*program, *arguments, "-q"],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )


def _finish(arguments: Sequence[str], cwd: Path, log: Path) -> int:
    process = _start(arguments, cwd, log)
    try:
        return process.wait(_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def photographs(folder: Path, count: int, seed: int) -> Path:
    """`count` pictures of 160 × 120 pixels in the common formats."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        suffix = ("jpg", "png", "webp", "tif")[index % 4]
        picture = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
        picture.save(folder / f"{index}.{suffix}")
    return folder


def results(output: Path) -> dict[str, str]:
    """What a run made, as digests; records and manifests without their times, state files left out."""
    found: dict[str, str] = {}
    roots = [output, output.with_suffix(".safetensors")]
    for root in roots:
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        for file in files:
            if file.is_file():
                found[file.relative_to(output.parent).as_posix()] = _digest(file)
    return found


def _digest(file: Path) -> str:
    data = file.read_bytes()
    if file.suffix == ".json":
        data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
    elif file.suffix == ".jsonl":
        lines = {line["path"]: _timeless(line) for line in map(json.loads, data.splitlines())}
        data = json.dumps(lines, sort_keys=True).encode()
    elif file.suffix == ".safetensors":  # whose writer puts its metadata in any order
        end = 8 + int.from_bytes(data[:8], "little")
        data = json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]
    return hashlib.sha256(data).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _timeless(item) for key, item in value.items() if key not in _UNSTABLE}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def killed(job: Job, kills: int, work: Path, seed: int) -> dict[str, Any]:
    """Kill a job `kills` times, five times a run at most, and finish each run.

    Returns counts. equal: runs that ended as the uninterrupted one did, bit for bit; different: those with
    other results; unfinished: those without all files; leftovers: files that only interrupted runs leave.
    """
    work.mkdir(parents=True)
    draw = random.Random(f"{seed} {job.name}")
    pictures = photographs(work / "pictures", job.pictures, seed)
    whole = work / "whole"
    began = time.perf_counter()
    status = _finish(job.arguments(pictures, whole), work, work / "log")
    usual = time.perf_counter() - began
    if status != 0:
        raise RuntimeError(f"{job.name} ended with {status} uninterrupted: {work / 'log'}")
    wanted = {name.replace("whole", "run", 1): digest for name, digest in results(whole).items()}
    counts = {"kills": 0, "runs": 0, "equal": 0, "different": 0, "unfinished": 0, "leftovers": 0}
    while counts["kills"] < kills:
        folder = work / f"{counts['runs']}"
        folder.mkdir()
        arguments = job.arguments(pictures, folder / "run")
        log = folder / "log"
        for _ in range(min(5, kills - counts["kills"])):
            process = _start(arguments, work, log)
            try:
                process.wait(usual * draw.uniform(0.4, 1.0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                counts["kills"] += 1
            else:
                break
        else:
            _finish(arguments, work, log)
        counts["runs"] += 1
        got = results(folder / "run")
        missing = [name for name in wanted if name not in got]
        counts["leftovers"] += len([name for name in got if name not in wanted])
        counts["unfinished"] += bool(missing)
        if not missing:
            same = all(got[name] == digest for name, digest in wanted.items())
            counts["equal" if same else "different"] += 1
            if same:
                shutil.rmtree(folder)
    return counts


def two_at_once(work: Path, seed: int) -> dict[str, Any]:
    """Two runs of `protect` into one folder: how each ends, what the second says, and what is there."""
    work.mkdir(parents=True)
    pictures = photographs(work / "pictures", 8, seed)
    _finish(_protect(pictures, work / "whole"), work, work / "log")
    wanted = {name.replace("whole", "run", 1): digest for name, digest in results(work / "whole").items()}
    logs = [work / "first.log", work / "second.log"]
    processes = [_start(_protect(pictures, work / "run"), work, log) for log in logs]
    statuses = [process.wait(_TIMEOUT) for process in processes]
    refused = [log.read_text() for log, status in zip(logs, statuses, strict=True) if status == 1]
    return {
        "statuses": sorted(statuses),
        "said": bool(refused) and all("another run" in text for text in refused),
        "equal": results(work / "run") == wanted,
    }


def disk_full(work: Path, seed: int) -> dict[str, Any]:
    """`protect` onto a file system of 200 kB, then again with room: a sentence, nothing half, and a full end.

    The small file system is mounted in a namespace of its own, which needs Linux.
    """
    work.mkdir(parents=True)
    pictures = photographs(work / "pictures", 8, seed)
    _finish(_protect(pictures, work / "whole"), work, work / "log")
    wanted = {name.replace("whole", "run", 1): digest for name, digest in results(work / "whole").items()}
    small = work / "small"
    small.mkdir()
    inner = [sys.executable, "-m", "unlikeness", *_protect(pictures, small / "run"), "-q"]
    script = (
        'mount -t tmpfs -o size=200k none "$0" && "$@"; status=$?; cp -r "$0/run" "$KEPT"; exit $status'
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(small), *inner],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env={**os.environ, "KEPT": str(work / "run"), "OMP_NUM_THREADS": "1"},
    )
    kept = results(work / "run")
    whole = {name: digest for name, digest in kept.items() if not name.endswith(".jsonl")}
    status = _finish(_protect(pictures, work / "run"), work, work / "again.log")
    return {
        "status": done.returncode,
        "said": "it cannot be written" in done.stderr and "Traceback" not in done.stderr,
        "finished_before": len(whole),
        "half": sum(wanted.get(name) != digest for name, digest in whole.items()),
        "again": status,
        "equal": results(work / "run") == wanted,
    }
