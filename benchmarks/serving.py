"""What does the service keep up with, and in how much memory?

    python -m benchmarks.serving

Throughput: JPEGs of 512 × 512, four clients at a time, beside `protect` on a folder of the same pictures.
Memory: 200 uploads at once of a picture each, of forms with too many files, of
endless bodies, and of 200 clients that send a byte and wait. All on the loopback address of one machine.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
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
PATH = "/v1/protect"


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    args = parser.parse_args(argv)
    count, clients = (4, 20) if args.quick else (40, CLIENTS)
    about = {"seed": args.seed, "quick": args.quick, "cores": len(os.sched_getaffinity(0))}
    results = common.Results(common.results_file(NAME, args), NAME, about, fresh=args.fresh, keep=args.keep)
    with tempfile.TemporaryDirectory() as folder:
        photos = pictures(Path(folder) / "photos", count)
        results.cell("throughput", partial(throughput, photos, Path(folder)))
        data = photos[0].read_bytes()
        loads: dict[str, Callable[[int], int]] = {
            "pictures": partial(post, data), "endless bodies": endless, "forms with too many files": bomb,
            "clients that wait": wait,
        }  # fmt: skip
        for name, send in loads.items():
            results.cell(f"load/{name}", partial(load, send, clients))
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
def service() -> Iterator[tuple[int, psutil.Popen]]:
    """Port and process of a service that has answered once."""
    run = psutil.Popen(
        [sys.executable, "-m", "unlikeness", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        found = re.search(r":(\d+)/", run.stdout.readline())
        if found is None:
            raise UnlikenessError("the service does not start")
        yield int(found[1]), run
    finally:
        run.terminate()
        run.wait()


def post(data: bytes, port: int) -> int:
    """The status of an answer to a picture."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", PATH, data)
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    return answer.status


def until_done(data: bytes, port: int) -> int:
    while (status := post(data, port)) == 503:
        time.sleep(0.1)
    return status


def throughput(photos: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Pictures a second [1/s], the best of three rounds that alternate: the CPU is shared."""
    data = [path.read_bytes() for path in photos]
    rid, inside, served = Rid(None, RidSettings()), 0.0, 0.0
    with service() as (port, _), ThreadPoolExecutor(4) as pool:
        post(data[0], port)
        protect_folder(photos[:1], folder / "first", rid, method="rid", batch_size=1)
        for number in range(3):
            began = time.perf_counter()
            protect_folder(photos, folder / f"out{number}", rid, method="rid", batch_size=1)
            inside = max(inside, len(photos) / (time.perf_counter() - began))
            began = time.perf_counter()
            statuses = Counter(pool.map(partial(until_done, port=port), data))
            served = max(served, len(photos) / (time.perf_counter() - began))
            if statuses != {200: len(photos)}:
                raise UnlikenessError(f"the service answered {dict(statuses)}")
    return {"inside": round(inside, 2), "served": round(served, 2)}


def endless(port: int) -> int:
    """Send a chunked body that never ends, until the answer comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=600) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        part = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        client.setblocking(True)
        try:
            while not _ready(client):
                client.sendall(part)
        except OSError:
            return 0
        return _status(client)


def bomb(port: int) -> int:
    """Send a form with 20,000 files."""
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\na\r\n'
    body = part * 20_000 + b"--b--\r\n"
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", PATH, body, {"content-type": "multipart/form-data; boundary=b"})
        return connection.getresponse().status
    finally:
        connection.close()


def wait(port: int) -> int:
    """Send the first byte of a picture, and wait to be sent away."""
    with socket.create_connection(("127.0.0.1", port), timeout=600) as client:
        client.sendall(b"P")
        return _status(client)


def _ready(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK)) or True
    except BlockingIOError:
        return False
    finally:
        client.setblocking(True)


def _status(client: socket.socket) -> int:
    try:
        words = client.recv(64).split()
    except OSError:
        return 0
    return int(words[1]) if len(words) > 1 else 0


def load(send: Callable[[int], int], clients: int) -> dict[str, Any]:
    """Statuses (0: closed without an answer), and memory of all processes before and at most [MiB]."""

    def safely(number: int) -> int:
        try:
            return send(port)
        except (OSError, HTTPException):
            return 0

    with service() as (port, run), ThreadPoolExecutor(clients) as pool:
        small = Path(tempfile.gettempdir()) / "small"
        Image.new("RGB", (64, 64), (90, 120, 150)).save(small, "PNG")
        post(small.read_bytes(), port)
        small.unlink()
        before = memory_of(run)
        with peak_memory(run) as peak:
            statuses = Counter(pool.map(safely, range(clients)))
        after = post(b"no picture", port)
    return {
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "before_mib": round(before), "peak_mib": round(peak[0]), "after": after,
    }  # fmt: skip


def render(record: Mapping[str, Any]) -> str:
    """The table of docs/reliability.md."""
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
                f"{sum(cell['statuses'].values())} {name} at once", ", ".join(words), cell["before_mib"],
                cell["peak_mib"],
            ])  # fmt: skip
    rate = cells["throughput"]
    said = (
        f"Throughput with JPEGs of {SIDE} × {SIDE} and four clients: {rate['served']:.1f} pictures a second, "
        f"{rate['served'] / rate['inside']:.0%} of `protect` on a folder ({rate['inside']:.1f}); "
        f"{record['about']['cores']} cores, shared with other programs."
    )
    head = ["sent on the loopback address", "answers", "memory before [MiB]", "at most [MiB]"]
    return "\n\n".join([common.table(head, rows), said])


if __name__ == "__main__":
    common.main(cli)
