"""What does the service keep up with, and in how much memory?

    python -m benchmarks.serving

Throughput: JPEGs of 512 × 512, four clients at a time, beside `protect` on a folder of the same pictures, in
rounds that alternate: in seconds of computing, and by the clock. Load: 200 clients at once, which send
pictures, endless bodies, forms with too many files, zips that unpack to far more than is allowed, or which
stop in the middle. All on the loopback address of one machine.
"""

from __future__ import annotations

import io
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks import common
from benchmarks.memory import memory_of, peak_memory
from unlikeness.errors import UnlikenessError
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.protect.rid.train.pictures import dead_leaves

NAME = "serving"
SIDE = 512
CLIENTS = 200
ROUNDS = 5
PICTURES = 8
MIB = 1 << 20
PATH = "/v1/protect"
FORM = "Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\na\r\n'

Sent = Callable[[int], int]
"""port -> the status of the answer; 0: closed without one."""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    args = parser.parse_args(argv)
    count, rounds, clients = (2, 1, 20) if args.quick else (PICTURES, ROUNDS, CLIENTS)
    about = {
        "seed": args.seed, "quick": args.quick, "cores": len(os.sched_getaffinity(0)), "rounds": rounds,
        "pictures": count,
    }  # fmt: skip
    results = common.Results(common.results_file(NAME, args), NAME, about, fresh=args.fresh, keep=args.keep)
    with tempfile.TemporaryDirectory() as folder:
        photos = pictures(Path(folder) / "photos", count)
        results.cell("throughput", partial(throughput, photos, Path(folder), rounds))
        for name, (options, send) in loads(photos[0].read_bytes(), Path(folder) / "jobs").items():
            results.cell(f"load/{name}", partial(load, send, options, photos[0].read_bytes(), clients))
    results.finish({})
    print(render(results.record))


def pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs with edges and textures."""
    folder.mkdir()
    found = []
    for number in range(count):
        found.append(folder / f"{number}.jpg")
        Image.fromarray(dead_leaves(np.random.default_rng(number), SIDE)).save(found[-1], quality=90)
    return found


@contextmanager
def service(*options: str) -> Iterator[tuple[int, psutil.Popen]]:
    """Port and process of a service that listens."""
    command = [sys.executable, "-m", "unlikeness", "serve", "--port", "0", *options]
    run = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        found = re.search(r":(\d+)/", run.stdout.readline())
        if found is None:
            raise UnlikenessError("the service does not start")
        yield int(found[1]), run
    finally:
        run.terminate()
        run.wait()


def post(data: bytes, port: int, path: str = PATH) -> int:
    """The status of an answer to a picture."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", path, data)
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    return answer.status


def throughput(photos: Sequence[Path], folder: Path, rounds: int) -> dict[str, Any]:
    """For each round the seconds that a picture takes in the folder and in the service [s].

    Of computing, by all processes of either side, and by the clock, on which other programs count too.
    "http": seconds of computing for a body of that size that is no picture, which is what the service adds.
    """
    data = [path.read_bytes() for path in photos]
    rid, here, found = Rid(None, RidSettings()), psutil.Process(), []
    with service() as (port, run), ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            list(pool.map(partial(post, port=port), data[:2]))
        protect_folder(photos[:1], folder / "first", rid, method="rid", batch_size=1)
        for number in range(rounds):
            clock, spent = time.perf_counter(), seconds_of(here, run)
            protect_folder(photos, folder / f"out{number}", rid, method="rid", batch_size=1)
            inside = (seconds_of(here, run) - spent, time.perf_counter() - clock)
            clock, spent = time.perf_counter(), seconds_of(run)
            statuses = Counter(pool.map(partial(post, port=port), data))
            served = (seconds_of(run) - spent, time.perf_counter() - clock)
            if statuses != {200: len(photos)}:
                raise UnlikenessError(f"the service answered {dict(statuses)}")
            found.append([round(one / len(photos), 4) for one in (*inside, *served)])
        spent, other = seconds_of(run), bytes(len(data[0]))
        refused = Counter(pool.map(partial(post, port=port), [other] * 200))
        if refused != {415: 200}:
            raise UnlikenessError(f"the service answered {dict(refused)}")
        http = (seconds_of(run) - spent) / 200
    return {"rounds": found, "http": round(http, 5)}


def seconds_of(process: psutil.Process, but: psutil.Process | None = None) -> float:
    """Seconds of computing of a process and its children, without `but` and its children."""
    family = [process, *process.children(recursive=True)]
    if but is not None:
        left_out = {but.pid, *(one.pid for one in but.children(recursive=True))}
        family = [one for one in family if one.pid not in left_out]
    return sum(sum(one.cpu_times()[:2]) for one in family)


def loads(picture: bytes, jobs: Path) -> dict[str, tuple[list[str], Sent]]:
    """What is sent -> options of the service, and what a client does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(256 * MIB))
    bomb = packed.getvalue()
    chunk, chunked = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n", ["Transfer-Encoding: chunked"]
    form = [PART * 1000] * 20
    small = f"Content-Length: {len(bomb)}"
    return {
        f"JPEGs of {SIDE} × {SIDE}": ([], partial(post, picture, path=f"{PATH}?at=tiles")),
        "endless bodies, of which 8 MiB are allowed": (
            ["--max-bytes", str(8 * MIB)], partial(stream, PATH, chunked, repeat(chunk)),
        ),
        "forms of 20,000 files": (
            [], partial(stream, PATH, [FORM, f"Content-Length: {len(form) * len(form[0])}"], form),
        ),
        "zips of 256 MiB, of which 16 MiB are allowed": (
            ["--jobs", str(jobs), "--job-bytes", str(16 * MIB)],
            partial(stream, "/v1/jobs", ["Content-Type: application/zip", small], [bomb]),
        ),
        "clients that send a byte and wait": ([], wait),
        "clients that stop within a picture, for which 10 s are allowed": (
            ["--seconds", "10"], partial(stream, PATH, [f"Content-Length: {len(picture)}"], [picture[:5000]]),
        ),
    }  # fmt: skip


def stream(path: str, headers: Sequence[str], parts: Iterable[bytes], port: int) -> int:
    """Send a body in parts, until they end or an answer comes, and wait for that."""
    with socket.create_connection(("127.0.0.1", port), timeout=600) as client:
        client.sendall("\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
        try:
            for part in parts:
                if _answered(client):
                    break
                client.sendall(part)
        except OSError:  # closed, perhaps behind an answer
            pass
        return _status(client)


def wait(port: int) -> int:
    """Send the first byte of a request, and wait to be sent away."""
    with socket.create_connection(("127.0.0.1", port), timeout=600) as client:
        client.sendall(b"P")
        return _status(client)


def _answered(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK)) or True
    except BlockingIOError:
        return False
    finally:
        client.settimeout(600)


def _status(client: socket.socket) -> int:
    try:
        words = client.recv(64).split()
    except OSError:
        return 0
    return int(words[1]) if len(words) > 1 else 0


def load(send: Sent, options: Sequence[str], picture: bytes, clients: int) -> dict[str, Any]:
    """Statuses (0: closed without an answer), memory of all processes [MiB] before and at most, and the
    status of a picture afterwards.
    """

    def safely(number: int) -> int:
        try:
            return send(port)
        except (OSError, HTTPException):
            return 0

    with service(*options) as (port, run), ThreadPoolExecutor(clients) as pool:
        path = f"{PATH}?at=tiles"
        with ThreadPoolExecutor(2) as few:  # both decoders have started
            list(few.map(lambda _: post(picture, port, path), range(2)))
        before = memory_of(run)
        with peak_memory(run, every=0.25) as peak:
            statuses = Counter(pool.map(safely, range(clients)))
        after = post(picture, port, path)
    return {
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "before_mib": round(before), "peak_mib": round(peak[0]), "after": after,
    }  # fmt: skip


def render(record: Mapping[str, Any]) -> str:
    """The tables of docs/reliability.md."""
    cells = record["cells"]
    rows = []
    for key, cell in cells.items():
        kind, _, name = key.partition("/")
        if kind == "load":
            words = [
                f"{count} × {'closed' if status == '0' else status}"
                for status, count in cell["statuses"].items()
            ]
            rows.append([
                f"{sum(cell['statuses'].values())} {name}", ", ".join(words), cell["before_mib"],
                cell["peak_mib"], cell["after"],
            ])  # fmt: skip
    head = ["at once", "answers", "memory before [MiB]", "at most [MiB]", "a picture afterwards"]
    rounds = cells["throughput"]["rounds"]
    middle = [statistics.median(column) for column in zip(*rounds, strict=True)]
    rates = [
        ["`protect` on the folder", middle[0], middle[1], "100 %", "100 %"],
        [
            "the service, four clients", middle[2], middle[3],
            f"{statistics.median(one[0] / one[2] for one in rounds):.0%}",
            f"{statistics.median(one[1] / one[3] for one in rounds):.0%}",
        ],
        ["a body of that size that is no picture", cells["throughput"]["http"], None, None, None],
    ]  # fmt: skip
    what = [
        f"JPEGs of {SIDE} × {SIDE}", "computing [s]", "clock [s]", "rate by computing", "rate by the clock",
    ]  # fmt: skip
    about = record["about"]
    said = (
        f"Seconds for a picture, and rates beside the folder's: medians of {about['rounds']} rounds of "
        f"{about['pictures']} pictures that alternate, on {about['cores']} cores that other programs use too."
    )
    return "\n\n".join([common.table(head, rows), common.table(what, rates), said])


if __name__ == "__main__":
    common.main(cli)
