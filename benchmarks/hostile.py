"""Do broken and malicious files, kills, a second run and a full disk cost more than they may?

    python -m benchmarks.hostile
    python -m benchmarks.hostile --parts mutants --mutants 1000

Five parts: mutants of valid pictures of every format (`mutants`); files that are built to take minutes or
gigabytes (`bombs`); runs that are killed and started again (`kills`); two runs into one folder (`two`); a
disk that fills up (`disk`, Linux only).
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tests.pictures.makers import ALL, ICC, XMP, Make, changed, exif, samples, saved, tiff

from benchmarks import common, interruptions
from benchmarks.bombs import BOMBS, pixels_of
from benchmarks.memory import memory_of, peak_memory
from unlikeness.errors import PictureError, UsageError
from unlikeness.pictures import Picture, open_picture, save_picture
from unlikeness.pictures.limits import MAX_PIXELS

NAME = "hostile"
PARTS = ("mutants", "bombs", "kills", "two", "disk")
SECONDS = 20.0
"""What one file may cost."""
MEBIBYTES = 256.0
"""Memory that one file may cost beyond its own pixels."""
METHOD = "noise"
"""What protects the folder of bombs."""
FURTHER: dict[str, Make] = {
    "jpeg-camera": saved("RGB", "JPEG", quality=92, exif=exif(3), xmp=XMP, icc_profile=ICC, dpi=(300, 300)),
    "jpeg-progressive-422": saved("RGB", "JPEG", quality=70, progressive=True, subsampling=1),
    "jpeg-restarts": saved("RGB", "JPEG", quality=80, restart_marker_blocks=2),
    "png-interlaced-exif": saved("RGBA", "PNG", exif=exif(5), icc_profile=ICC),
    "webp-lossy-plain": saved("RGB", "WEBP", quality=40),
    "tiff-lzma": tiff(samples(3), photometric="rgb", compression="lzma"),
    "avif-alpha": saved("RGBA", "AVIF", quality=80),
}
"""Seed files beside those of the tests."""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--mutants", type=int, default=30_000, help="mutated files in all")
    parser.add_argument("--kills", type=int, default=100, help="kills in all")
    args = parser.parse_args(argv)
    parts = args.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise UsageError(f"--parts has no {unknown[0]}; there are {', '.join(PARTS)}")
    mutants, kills = (60, 4) if args.quick else (args.mutants, args.kills)
    results = common.Results(
        common.results_file(NAME, args), NAME, {"seed": args.seed}, fresh=args.fresh, keep=args.keep
    )
    work = common.RUNS / NAME
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if "mutants" in parts:
        results.cell(f"mutants/{mutants}", lambda: mutated(mutants, work / "mutants", args.seed))
    if "bombs" in parts:
        bombs = dict(list(BOMBS.items())[:: 12 if args.quick else 1])
        results.cell(f"bombs/{len(bombs)}", lambda: exploded(bombs, work / "bombs"))
    if "kills" in parts:
        share = kills // len(interruptions.JOBS)
        for job in interruptions.JOBS:
            place = work / job.name.split()[0]
            results.cell(f"kills/{job.name}", partial(interruptions.killed, job, share, place, args.seed))
    if "two" in parts:
        results.cell("two", lambda: interruptions.two_at_once(work / "two", args.seed))
    if "disk" in parts:
        results.cell("disk", lambda: interruptions.disk_full(work / "disk", args.seed))
    results.finish({})
    print(render(results.record))


# Mutants ----------------------------------------------------------------------------------------------------


def seed_files(folder: Path) -> list[bytes]:
    """The bytes of every seed file."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, make in {**ALL, **FURTHER}.items():
        path = folder / name
        make(path)
        found.append(path.read_bytes())
    return found


def mutant(seeds: Sequence[bytes], draw: random.Random) -> bytes:
    """One seed file with one to three damages: bits, lengths, spans that vanish, move or come twice."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(len(data)) if draw.random() < 0.5 else draw.randrange(min(len(data), 300))
        span = draw.randint(1, 64)
        kind = draw.randrange(9)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + span] = draw.randbytes(len(data[at : at + span]))
        elif kind == 2:
            value = draw.choice((0, 1, 2, at, len(data), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
            data[at : at + 4] = struct.pack(draw.choice("<>") + "I", value)
        elif kind == 3:
            del data[at : at + span]
        elif kind == 4:
            data[at:at] = data[at : at + span] * draw.choice((1, 2, 50))
        elif kind == 5:
            data[at : at + span] = bytes(len(data[at : at + span]))
        elif kind == 6:
            del data[max(1, at) :]
        elif kind == 7:
            other = draw.choice(seeds)
            start = draw.randrange(len(other))
            data[at : at + span] = other[start : start + span]
        else:
            data[at : at + span] = b"\xff" * len(data[at : at + span])
    return _with_checksums(data) if draw.random() < 0.5 else bytes(data)


def _with_checksums(data: bytearray) -> bytes:
    """A PNG with the checksums that its damaged chunks would have, so that more than these are tried."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def mutated(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """Open `count` mutants; what opens is changed, saved, opened again and compared."""
    folder.mkdir(parents=True)
    seeds = seed_files(folder / "seeds")
    draw = random.Random(seed)
    found: Counter[str] = Counter(dict.fromkeys(("opened", "refused", "unwritable", "wrong"), 0))
    path, target = folder / "mutant", folder / "target"
    longest = 0.0
    for _ in range(count):
        data = mutant(seeds, draw)
        path.write_bytes(data)
        began = time.perf_counter()
        fault = _survives(path, target)
        longest = max(longest, time.perf_counter() - began)
        found[fault or "opened"] += 1
        if fault == "wrong":
            (folder / f"wrong-{found['wrong']}").write_bytes(data)
    return {"seeds": len(seeds), "files": count, **found, "longest": round(longest, 2)}


def _survives(path: Path, target: Path) -> str | None:
    """None if it is a picture and stays one; "refused" if one line says why it is none; "unwritable" if one
    says why it cannot be written; else "wrong", as where what was written does not open again."""
    picture, fault = _opened(path, 1_000_000)
    if picture is None:
        return fault
    before = picture.rgb
    try:
        save_picture(picture, changed(picture), target, budget=8)
    except PictureError as error:
        return "unwritable" if "\n" not in str(error) else "wrong"
    except Exception:  # noqa: BLE001 - whatever else comes is what this looks for
        traceback.print_exc()
        return "wrong"
    again, _ = _opened(target)
    if again is None or again.size != picture.size:
        return "wrong"
    over = picture.lossless and np.abs(again.rgb - before).max() > 8 / 255 + 1e-5
    return "wrong" if over else None


def _opened(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[Picture | None, str]:
    """A picture; or None and "refused" if one line says why not, else "wrong", with the fault on stderr."""
    try:
        return open_picture(path, max_pixels=max_pixels), "opened"
    except PictureError as error:
        return None, "refused" if "\n" not in str(error) else "wrong"
    except Exception:  # noqa: BLE001 - whatever else comes is what this looks for
        print(path.name, file=sys.stderr)
        traceback.print_exc()
        return None, "wrong"


# Bombs ------------------------------------------------------------------------------------------------------


def exploded(bombs: Mapping[str, Callable[[], bytes]], folder: Path) -> dict[str, Any]:
    """Open each bomb by itself, then protect a folder of all of them with one good picture among them."""
    folder.mkdir(parents=True)
    me = psutil.Process()
    found: Counter[str] = Counter(dict.fromkeys(("opened", "refused", "wrong", "too_slow", "too_large"), 0))
    longest, largest, worst = 0.0, 0.0, {}
    pictures = folder / "pictures"
    interruptions.photographs(pictures, 1, 0)
    for index, (name, make) in enumerate(bombs.items()):
        path = pictures / f"bomb{index:02}.{name.partition(':')[0]}"
        path.write_bytes(make())
        before, began = memory_of(me), time.perf_counter()
        pixels = pixels_of(name) * _BYTES_A_PIXEL / 2**20
        with peak_memory(me) as peak:
            _, kind = _opened(path)
        seconds, more = time.perf_counter() - began, peak[0] - before - pixels
        found[kind] += 1
        found["too_slow"] += seconds > SECONDS
        found["too_large"] += more > MEBIBYTES
        longest, largest = max(longest, seconds), max(largest, more)
        worst[name] = [kind, round(seconds, 2), round(more)]
        print(f"{name}: {kind}, {seconds:.2f} s, {more:.0f} MiB", flush=True)
    return {
        "files": len(bombs), **found, "longest": round(longest, 2), "largest": round(largest),
        "each": worst, **_folder_of(pictures, folder / "out"),
    }  # fmt: skip


_BYTES_A_PIXEL = 8
"""What a decoded picture itself may take while it is opened: Pillow's four bytes a pixel, and ours."""


def _folder_of(pictures: Path, output: Path) -> dict[str, Any]:
    """`protect` over the whole folder: its status, and whether every file has its line in the manifest."""
    command = [sys.executable, "-m", "unlikeness", "protect", str(pictures), "-o", str(output)]
    began = time.perf_counter()
    done = subprocess.run([*command, "--method", METHOD, "-q"], capture_output=True, text=True)
    lines = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    told = {line["path"]: line["status"] for line in lines}
    return {
        "folder_status": done.returncode,
        "folder_traceback": "Traceback" in done.stderr,
        "folder_untold": sum(file.name not in told for file in pictures.iterdir()),
        "folder_good": told.get("0.jpg") == "protected",
        "folder_seconds": round(time.perf_counter() - began, 1),
    }


# The table --------------------------------------------------------------------------------------------------


def render(record: Mapping[str, Any]) -> str:
    """The table of docs/reliability.md."""
    cells: Mapping[str, Mapping[str, Any]] = record["cells"]
    rows: list[list[object]] = []
    for key, cell in cells.items():
        part = key.partition("/")[0]
        if part == "mutants":
            rows.append([
                f"{cell['files']:,} mutants of {cell['seeds']} pictures of every format",
                f"{cell['opened']:,} opened, changed, saved and opened again; {cell['refused']:,} refused "
                f"and {cell['unwritable']} not saved, with one line",
                f"{cell['wrong']} otherwise; the slowest took {cell['longest']:.1f} s",
            ])  # fmt: skip
        elif part == "bombs":
            rows.append([
                f"{cell['files']} files built to take minutes or gigabytes",
                f"{cell['opened']} opened, {cell['refused']} refused with one line",
                f"{cell['wrong']} otherwise; {cell['too_slow']} over {SECONDS:.0f} s (the slowest "
                f"{cell['longest']:.1f} s); {cell['too_large']} over {MEBIBYTES:.0f} MiB beyond their pixels "
                f"(the largest {cell['largest']} MiB)",
            ])  # fmt: skip
            rows.append([
                "`protect` on a folder of these and one good picture",
                "it was protected" if cell["folder_good"] else "**it was not protected**",
                f"{cell['folder_untold']} files without a line in the manifest; all in "
                f"{cell['folder_seconds']:.0f} s",
            ])  # fmt: skip
        elif part == "kills":
            rows.append([
                f"`{key.partition('/')[2]}`, killed {cell['kills']} times in {cell['runs']} runs",
                f"{cell['equal']} runs ended as an uninterrupted one, bit for bit",
                f"{cell['different']} otherwise, {cell['unfinished']} unfinished, "
                f"{cell['leftovers']} files left over",
            ])  # fmt: skip
        elif part == "two":
            rows.append([
                "two runs of `protect` into one folder",
                "the second stopped with a sentence" if cell["said"] else "**the second did not say so**",
                "all pictures as of one run" if cell["equal"] else "**other pictures**",
            ])  # fmt: skip
        elif part == "disk":
            rows.append([
                "`protect` onto a disk that fills up, then again with room",
                "a sentence, and status 1" if cell["said"] and cell["status"] == 1 else "**no sentence**",
                f"{cell['half']} half pictures; "
                + ("then all pictures as of one run" if cell["equal"] else "**then other pictures**"),
            ])  # fmt: skip
    return common.table(["what was tried", "what happened", "what went wrong"], rows)


if __name__ == "__main__":
    common.main(cli)
