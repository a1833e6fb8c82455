"""What does a whole `unlikeness protect` cost, and the network in it beside the official one?

    OMP_NUM_THREADS=1 python -m benchmarks.start_up

Seconds of computing (CPU time), which a busy machine changes little, of the command and the processes that it
starts, from the first line to the last; its wall clock; and the largest memory of its processes together. The
networks compute one picture of 512 × 512 in float32 on one thread. The official network has its real
architecture and random weights, its constant terms folded in, which is quicker than as published.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks import common
from benchmarks.memory import peak_memory
from unlikeness.errors import UnlikenessError
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.protect.rid.official import official_like
from unlikeness.protect.rid.train.pictures import dead_leaves

NAME = "start_up"
SIDE = 512
PICTURES = {"512 × 512": (512, 512), "4000 × 3000": (4000, 3000), "10000 × 10000": (10_000, 10_000)}
SMALL = {"64 × 64": (64, 64)}


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--no-official", action="store_true", help="leave the official network for later")
    args = parser.parse_args(argv)
    about = {"seed": args.seed, "quick": args.quick, "threads": 1}
    results = common.Results(common.results_file(NAME, args), NAME, about, fresh=args.fresh, keep=args.keep)
    torch.set_num_threads(1)
    repeats = 1 if args.quick else 3
    with tempfile.TemporaryDirectory() as folder:
        results.cell("process/import torch", partial(cost, [sys.executable, "-c", "import torch"], repeats))
        for name, size in (SMALL if args.quick else PICTURES).items():
            source = picture(Path(folder), size)
            few = 1 if size[0] > 5000 else repeats
            results.cell(f"process/{name}", partial(protect, source, Path(folder) / "out", few))
    images = np.random.default_rng(0).random((1, 3, SIDE, SIDE), np.float32)
    for engine in ("onnxruntime", "torch"):
        ours = Rid(None, RidSettings(), engine=engine)
        work = partial(ours.perturb_arrays, images, None, [0])
        results.cell(f"network/ours, {engine}", partial(pass_seconds, work, 5 * repeats, ours.dtype))
    if not args.no_official:
        time_official(results, images, repeats, quick=args.quick)
    results.finish({})
    print(render(results.record))


def time_official(results: common.Results, images: Any, repeats: int, *, quick: bool) -> None:
    made = official_like(width=64, depth=1, side=SIDE) if quick else official_like()
    work_there = partial(made, torch.from_numpy(images))
    results.cell("network/official, torch", partial(pass_seconds, work_there, repeats, "torch.float32"))


def picture(folder: Path, size: tuple[int, int]) -> Path:
    """A JPEG of this size with edges and textures."""
    path = folder / f"{size[0]}.jpg"
    leaves = Image.fromarray(dead_leaves(np.random.default_rng(0), 512))
    leaves.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def protect(source: Path, output: Path, repeats: int) -> dict[str, Any]:
    """`cost` of `unlikeness protect` on one file, into a new folder each time."""
    found = []
    for number in range(repeats):
        into = output / f"{source.stem}-{number}"
        words = ["-m", "unlikeness", "protect", str(source), "--output", str(into), "-q"]
        found.append(cost([sys.executable, *words], 1))
    return min(found, key=lambda one: float(one["cpu"]))


def cost(command: Sequence[str], repeats: int) -> dict[str, Any]:
    """The least CPU time [s] of a command and its processes, with its wall clock [s] and memory [MiB]."""
    found = []
    for _ in range(repeats):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        run = psutil.Popen(command, stdout=subprocess.DEVNULL)
        with peak_memory(run) as peak:
            status = run.wait()
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if status:
            raise UnlikenessError(f"{' '.join(command)} ended with status {status}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append({"cpu": round(cpu, 2), "wall": round(wall, 2), "peak_mib": round(peak[0])})
    return min(found, key=lambda one: one["cpu"])


def pass_seconds(work: Callable[[], object], repeats: int, dtype: str) -> dict[str, Any]:
    """The least CPU time [s] of a pass, after one that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return {"cpu": round(min(found), 4), "dtype": dtype.removeprefix("torch.")}


def render(record: Mapping[str, Any]) -> str:
    """The tables of docs/performance.md."""
    processes, networks = [], []
    for key, cell in record["cells"].items():
        kind, _, name = key.partition("/")
        if kind == "process":
            name = name if name == "import torch" else f"`unlikeness protect`, {name} JPEG"
            processes.append([name, f"{cell['cpu']:.2f}", cell["peak_mib"]])
        else:
            networks.append([name, cell["dtype"], f"{cell['cpu'] * 1000:.0f}"])
    said = "CPU time on one thread, the least of several runs, on a machine that was busy with other work."
    theirs = record["cells"].get("network/official, torch")
    if theirs is not None:
        times = theirs["cpu"] / record["cells"]["network/ours, onnxruntime"]["cpu"]
        said = f"On ONNX Runtime our network is {times:.0f} times faster than the official one. {said}"
    return "\n\n".join([
        common.table(["whole process", "CPU time [s]", "largest memory [MiB]"], processes),
        common.table(["network", "precision", "a pass [ms of CPU time]"], networks),
        said,
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
