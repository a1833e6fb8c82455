"""The process that decodes: asked for one file after the other, it answers with a picture or a reason.

`guard` starts it and ends it. It ignores Ctrl-C, which is the other process's to act upon, and ends when that
process is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from unlikeness.pictures.areas import Area, kept_in
from unlikeness.pictures.budget import Budget
from unlikeness.pictures.limits import OVER, TOO_LARGE, Limits, Meter
from unlikeness.pictures.link import Link
from unlikeness.pictures.paged import PAGED
from unlikeness.pictures.reading import decode_file
from unlikeness.pictures.unusable import Unusable
from unlikeness.pictures.wire import Packed, packed

__all__ = ["main"]

_THREADS = 4
"""Of libraries that decode with several: each costs memory."""


def main() -> None:
    """Serve until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end = _connected()
    link = Link(end)
    link.send(packed("ready"))
    _be_quiet()
    _be_modest()
    meter, busy = Meter(), threading.Event()
    threading.Thread(target=_watch, args=(end, meter, busy), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            text, _, _ = link.receive()
            busy.set()
            answer, last = _answer(json.loads(text)["dict"], meter)
            busy.clear()
            link.send(answer)
            if sys.platform != "win32":  # where shared memory goes with the last process that has it open
                del answer
            if last:
                link.receive()  # the other process has what it needs, and ends this one


def _answer(asked: list[list[Any]], meter: Meter) -> tuple[Packed, bool]:
    """The answer, and whether it is the last: a process that ran out of memory is not asked again, nor one
    that keeps some of a very large picture's.
    """
    request = dict(asked)
    meter.begin(Limits(request["seconds"], request["waiting"], request["spare"]))
    shared: list[Area] = []
    path = Path(os.fsdecode(bytes.fromhex(request["path"])))

    def budget(size: int) -> Budget:
        meter.allow(size)
        return Budget(size, lambda pixels: meter.allow(size, pixels))

    try:
        with kept_in(shared):
            decoded = decode_file(path, request["max_pixels"], budget)
        last = decoded.raster.pixels.nbytes >= PAGED
        return packed(["picture", decoded, last], shared), last
    except Unusable as reason:
        last = isinstance(reason.__cause__, MemoryError)
        return packed(["unusable", str(reason), last]), last
    except MemoryError:
        return packed(["unusable", TOO_LARGE, True]), True
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this file's, and is told
        return packed(["failed", f"{type(error).__name__}: {error}"]), True


def _connected() -> socket.socket:
    """The socket that was given by `guard`."""
    if sys.platform == "win32":
        share = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
        return socket.fromshare(share)
    return socket.socket(fileno=os.dup(0))


def _be_quiet() -> None:
    """Libraries write what they think of damaged files to descriptors 1 and 2: nobody is to see it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _be_modest() -> None:
    """No file of the memory when it is killed, and few threads."""
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = _THREADS
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _watch(end: socket.socket, meter: Meter, busy: threading.Event) -> None:
    """End this process while it works if the other one is gone, or if it uses more than it may."""
    while busy.wait():
        ready, _, _ = select.select([end], [], [], 0.1)
        with contextlib.suppress(OSError):
            gone = bool(ready) and busy.is_set() and not end.recv(1, socket.MSG_PEEK)
            if gone:
                os._exit(1)
            if busy.is_set() and meter.over():
                os._exit(OVER)
