"""How quick is protection in one forward pass? Our network beside the official one, and whole files.

    python -m benchmarks.rid_speed

One run on one machine: both networks at 512 × 512, each in float32 and bfloat16; ours at growing sizes; a
12-megapixel JPEG from decoding to encoding; a folder of pictures; and the memory for 100 megapixels. The
official network has its real architecture and random weights, its constant terms folded in, which is quicker
than as published.
"""

from __future__ import annotations

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
from unlikeness.diffusion.devices import pick_device
from unlikeness.errors import UnlikenessError
from unlikeness.protect import registry
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.rid.network import Protector
from unlikeness.protect.rid.official import OfficialRid, official_like
from unlikeness.protect.rid.train.pictures import dead_leaves
from unlikeness.protect.rid.weights import load_protector
from unlikeness.protect.settings import ResolutionMode

NAME = "rid_speed"
SIDE = 512
SIZES = (256, 512, 1024, 2048)
FOLDER = 40
"""Pictures of the folder, 640 × 480 JPEG."""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    args = parser.parse_args(argv)
    device = pick_device(args.device)
    about = {"seed": args.seed, "quick": args.quick, "threads": torch.get_num_threads()}
    results = common.Results(common.results_file(NAME, args), NAME, about, fresh=args.fresh, keep=args.keep)
    repeats = 1 if args.quick else 5
    ours = load_protector().network
    for dtype in (torch.float32, torch.bfloat16):
        precision = str(dtype).removeprefix("torch.")
        for side in (64, 128) if args.quick else SIZES:
            results.cell(f"ours/{precision}/{side}", partial(time_ours, ours, side, dtype, device, repeats))
        made = official_like(width=64, depth=1, side=64) if args.quick else official_like()
        results.cell(f"official/{precision}/{SIDE}", partial(time_official, made, dtype, device, repeats))
    count = 2 if args.quick else FOLDER
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("fit", "tiles"):
            size = (400, 300) if args.quick else (4000, 3000)
            results.cell(f"file/{mode}/12MP", partial(time_files, Path(folder), 1, size, mode))
            side = 500 if args.quick else 10_000
            results.cell(f"memory/{mode}/100MP", partial(largest_memory, Path(folder), side, mode))
            results.cell(f"folder/{mode}", partial(time_files, Path(folder), count, (640, 480), mode))
    cells = results.cells
    best = {
        who: min(
            cells[key]["forward"] for key in cells if key.startswith(f"{who}/") and key.endswith(f"/{SIDE}")
        )
        for who in (("official",) if args.quick else ("ours", "official"))
    }
    results.finish({"best": best}, device=device)
    print(render(results.record))


def best_of(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The least of `repeats` timings after one that is not counted [s]."""
    work()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found)


@torch.no_grad()
def time_ours(
    network: Protector, side: int, dtype: torch.dtype, device: torch.device, repeats: int
) -> dict[str, float]:
    """One forward pass on one picture of `side` px [s]."""
    made = Protector(network.settings)
    made.load_state_dict(network.state_dict())
    made = made.to(device, dtype).eval()
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen = torch.rand(1, 4, side, side, device=device, dtype=dtype)
    seen = seen.contiguous(memory_format=torch.channels_last)
    return {"forward": best_of(lambda: made.unit(seen), repeats, device)}


def time_official(
    network: OfficialRid, dtype: torch.dtype, device: torch.device, repeats: int
) -> dict[str, float]:
    """One forward pass of the official architecture on one picture of its own size [s]."""
    made = network.to(device, dtype)
    images = torch.rand(1, 3, made.side, made.side, device=device, dtype=dtype)
    return {"forward": best_of(lambda: made(images), repeats, device)}


def time_files(folder: Path, count: int, size: tuple[int, int], mode: str) -> dict[str, Any]:
    """`protect` on JPEGs: seconds a picture from decoding to the saved file, its check included."""
    source, output = folder / f"{size[0]}-{count}", folder / f"out-{mode}-{size[0]}-{count}"
    source.mkdir(exist_ok=True)
    leaves = dead_leaves(np.random.default_rng(0), 512)
    for i in range(count):
        file = source / f"{i}.jpg"
        if not file.exists():
            turned = Image.fromarray(np.roll(leaves, 13 * i, axis=1))
            turned.resize(size, Image.Resampling.BICUBIC).save(file, quality=90)
    perturber = registry.create("rid")
    warm = torch.rand(1, 3, 128, 128)
    perturber.perturb(warm, [0])
    began = time.perf_counter()
    at = ResolutionMode(mode=mode)
    outcome = protect_folder([source], output, perturber, method="rid", at=at, batch_size=1)
    seconds = time.perf_counter() - began
    assert len(outcome.protected) == count, outcome.skipped
    return {"pictures": count, "size": list(size), "seconds_a_picture": round(seconds / count, 4)}


def largest_memory(folder: Path, side: int, mode: str) -> dict[str, Any]:
    """`unlikeness protect` on one square JPEG: the largest memory of its processes together [MiB].

    UnlikenessError if it fails.
    """
    source = folder / f"{side}.jpg"
    if not source.exists():
        leaves = Image.fromarray(dead_leaves(np.random.default_rng(0), 512))
        leaves.resize((side, side), Image.Resampling.BICUBIC).save(source, quality=90)
    arguments = ["protect", str(source), "--output", str(folder / f"large-{mode}"), "--at", mode, "-q"]
    run = psutil.Popen([sys.executable, "-m", "unlikeness", *arguments], stdout=subprocess.DEVNULL)
    with peak_memory(run) as peak:
        status = run.wait()
    if status:
        raise UnlikenessError(f"unlikeness {' '.join(arguments)} ended with status {status}")
    return {"size": [side, side], "peak_mib": round(peak[0])}


def render(record: Mapping[str, Any]) -> str:
    """The tables of docs/performance.md."""
    rows, files, memory = [], [], []
    for key, cell in record["cells"].items():
        who, *rest = key.split("/")
        if who in ("ours", "official"):
            precision, side = rest
            pixels = int(side) ** 2
            rows.append(
                [
                    who,
                    precision,
                    side,
                    f"{cell['forward'] * 1000:.0f}",
                    f"{cell['forward'] / pixels * 1e9:.0f}",
                ]
            )
        elif who == "memory":
            width, height = cell["size"]
            memory.append([rest[0], f"{width} × {height}", cell["peak_mib"]])
        else:
            width, height = cell["size"]
            seconds = cell["seconds_a_picture"]
            files.append(
                [rest[0], f"{width} × {height}", cell["pictures"], f"{seconds:.2f}", f"{1 / seconds:.1f}"]
            )
    best = record["summary"].get("best", {})
    said = ""
    if {"ours", "official"} <= set(best):
        said = (
            f"At {SIDE} × {SIDE}, each at its better precision: {best['ours'] * 1000:.0f} ms against "
            f"{best['official'] * 1000:.0f} ms, {best['official'] / best['ours']:.1f} times faster."
        )
    return "\n\n".join([
        common.table(["network", "precision", "side [px]", "forward pass [ms]", "a pixel [ns]"], rows), said,
        common.table(["--at", "picture", "pictures", "seconds a picture", "pictures a second"], files),
        common.table(["--at", "picture", "largest memory [MiB]"], memory),
        f"Least of several passes, {record['about']['threads']} threads. Files: JPEG, decode to encode, with "
        "the check of the saved file.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
