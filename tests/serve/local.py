"""A service on a real port of this machine, and a client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

from unlikeness.protect.methods.rid import Rid
from unlikeness.serve import running
from unlikeness.serve.app import make_app
from unlikeness.serve.jobs import opened_jobs
from unlikeness.serve.settings import Limits
from unlikeness.serve.task import Offer
from unlikeness.serve.work import Work


@contextmanager
def service(rid: Rid, folder: Path, **given: Any) -> Iterator[int]:
    """The port of a service that runs in a thread. jobs: a folder for them; offer: what they may use."""
    about = {name: given.pop(name) for name in ("token", "page", "loopback") if name in given}
    kept, offer = given.pop("jobs", None), given.pop("offer", Offer({"rid-photo": "rid-photo"}, 50_000_000))
    folder.mkdir(exist_ok=True)
    limits = Limits(**{"rate": 0, **given})
    work = Work({"rid-photo": rid}, limits, folder)
    with ExitStack() as stack:
        opened = stack.enter_context(running.listening("127.0.0.1", 0))
        jobs = None if kept is None else stack.enter_context(opened_jobs(kept, limits))
        server = running.server(make_app(work, jobs=jobs, offer=offer, **about))
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        try:
            yield opened.getsockname()[1]
            until = time.monotonic() + 20
            while (work.places or list(folder.iterdir())) and time.monotonic() < until:
                time.sleep(0.02)
            assert not work.places, "every place is free again"
            assert not list(folder.iterdir()), "nothing is kept"
        finally:
            server.should_exit = True
            thread.join(30)


def ask(
    port: int, path: str, body: bytes | Iterator[bytes] | None = None, method: str = "POST", **headers: str
) -> tuple[int, HTTPMessage, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def form(**files: bytes) -> tuple[bytes, str]:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="../../{name}"\r\n\r\n'.encode()
        + data + b"\r\n"
        for name, data in files.items()
    ]  # fmt: skip
    return b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


def said(body: bytes, status: int) -> str:
    """The sentence of a problem."""
    found = json.loads(body)
    assert found["status"] == status
    detail: str = found["detail"]
    assert "\n" not in detail
    assert "Traceback" not in detail
    return detail
