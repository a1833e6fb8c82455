"""The process that decodes: for one file after the other it answers with a picture or a reason.

`guard` starts and ends it. It ignores Ctrl-C, to which the other process reacts, and ends with that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import stat
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from unlikeness.pictures.formats.base import DAMAGE, Raster
from unlikeness.pictures.kinds import HEAD, SUPPORTED, announced, format_of
from unlikeness.pictures.limits import (
    BYTES_PER_PIXEL,
    OVER,
    TOO_LARGE,
    Budget,
    Limits,
    Meter,
    Unusable,
    most_bytes,
)
from unlikeness.pictures.memory import PAGED, Area, kept_in
from unlikeness.pictures.wire import Link, Packed, packed

__all__ = ["Decoded", "decode_file", "main"]

_WHOLE = 256 << 20
"""Bytes of a file from which on its header is checked before all of it is read."""
_BYTES_PER_LAYERED = 64
"""Bytes for each pixel of a TIFF file, which may hold layers beside its picture."""
_HEADED = ("JPEG", "PNG", "TIFF", "BMP")
"""Formats that can be so large, by Pillow's names."""

_THREADS = 4
"""Threads of libraries that decode with several: each needs memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What a file holds: the name of its format, its raster, its size in bytes and its time of change."""

    format: str
    raster: Raster
    stamp: tuple[int, int]


def decode_file(path: Path, max_pixels: int, budget: Callable[[int], Budget] = Budget) -> Decoded:
    """Read and decode a file in this process. Unusable, with reason and remedy, if that is impossible.

    budget: what the reading of a file of so many bytes may cost.
    """
    data, stamp, cost = _load(path, max_pixels, budget)
    found = announced(data[:HEAD])  # also of a kind that passes for another, as camera RAW does for TIFF
    kind = found if found and found not in SUPPORTED else format_of(data[:4096])
    try:
        read = _reader(kind)
        with warnings.catch_warnings(), cost.active():
            warnings.simplefilter("ignore")
            raster = read(data, max_pixels)
    except Unusable:
        raise
    except MemoryError as error:
        raise Unusable(TOO_LARGE) from error
    except Image.DecompressionBombError as error:
        raise Unusable(
            "it is larger than Pillow unpacks in one piece; scale it down or save it as PNG"
        ) from error
    except DAMAGE as error:
        # A decoder's own message is worth showing; an index out of range is not.
        known = isinstance(error, (OSError, SyntaxError, ValueError, RuntimeError)) and str(error)
        said = f" ({error})" if known else ""
        raise Unusable(
            f"it is damaged or truncated{said}; copy it again, or open and export it elsewhere"
        ) from error
    return Decoded(str(kind), raster, stamp)


def _reader(kind: str | None) -> Callable[[bytes, int], Raster]:
    """The `read` of a format's module, loaded at its first use. Unusable where there is none."""
    if kind is None:
        raise Unusable(
            "it is no JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF picture; convert it to one of these"
        )
    if kind == "GIF":
        raise Unusable("GIF holds 256 colours or an animation, which cannot be protected; convert it to PNG")
    if kind not in SUPPORTED | {"TIFF", "BMP"}:
        raise Unusable(f"{kind} files cannot be protected; export it as JPEG, PNG or TIFF first")
    module = import_module(f"unlikeness.pictures.formats.{kind.lower()}")
    read: Callable[[bytes, int], Raster] = module.read
    return read


def _load(
    path: Path, max_pixels: int, budget: Callable[[int], Budget]
) -> tuple[bytes, tuple[int, int], Budget]:
    """The file's bytes, its size and time of change, and its budget. Never waits for a pipe, nor reads a file
    without a bound.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unusable("it is not a file; name a picture or a folder of pictures")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                raise Unusable("the file is empty; copy or export it again")
            if status.st_size > most_bytes(max_pixels):
                reason = f"its {status.st_size:,} bytes are too many for max_pixels {max_pixels:,}"
                raise Unusable(f"{reason}; scale it down, or raise max_pixels where that can be set")
            if status.st_size > _WHOLE:
                _check_worth(file, status.st_size)
            cost = budget(status.st_size)
            return file.read(status.st_size), (status.st_size, status.st_mtime_ns), cost
    except OSError as error:
        raise Unusable(f"it cannot be read ({error.strerror}); check the name and its permissions") from error
    except ValueError as error:  # a name with a null character
        raise Unusable(f"it cannot be read ({error}); check the name") from error


def _check_worth(file: BinaryIO, size: int) -> None:
    """Refuse a very large file of a small picture before it is read: it would need more memory than its
    pixels.
    """
    try:
        with Image.open(file, formats=_HEADED) as image:
            (width, height), layered = image.size, image.format == "TIFF"
    except DAMAGE as error:
        raise Unusable(f"its {size:,} bytes are no picture of that size; export it again") from error
    if size > width * height * (_BYTES_PER_LAYERED if layered else BYTES_PER_PIXEL):
        raise Unusable(f"its {size:,} bytes are too many for {width} × {height} pixels; export it again")
    file.seek(0)


def main() -> None:
    """Decode until the other end is gone."""
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


def _answer(fields: list[list[Any]], meter: Meter) -> tuple[Packed, bool]:
    """The answer, and whether it is the last: for a process that ran out of memory, or that keeps some memory
    of a very large picture.
    """
    request = dict(fields)
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
    except Exception as error:  # noqa: BLE001 - a fault of any kind belongs to this file, and is reported
        return packed(["failed", f"{type(error).__name__}: {error}"]), True


def _connected() -> socket.socket:
    """The socket that was given by `guard`."""
    if sys.platform == "win32":
        share = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
        return socket.fromshare(share)
    return socket.socket(fileno=os.dup(0))


def _be_quiet() -> None:
    """Drop what libraries write about damaged files to descriptors 1 and 2."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _be_modest() -> None:
    """No core file when this process is killed, and few threads."""
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = _THREADS
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _watch(end: socket.socket, meter: Meter, busy: threading.Event) -> None:
    """End this process while it works if the other one is gone, or if it uses too much."""
    while busy.wait():
        ready, _, _ = select.select([end], [], [], 0.1)
        with contextlib.suppress(OSError):
            gone = bool(ready) and busy.is_set() and not end.recv(1, socket.MSG_PEEK)
            if gone:
                os._exit(1)
            if busy.is_set() and meter.over():
                os._exit(OVER)
