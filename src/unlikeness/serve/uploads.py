"""Bodies of requests, written to files while they arrive. What a client announces is never trusted."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from unlikeness.serve.faults import Fault

__all__ = ["Gone", "save"]

_AROUND = 64 << 10
"""Bytes that a form may hold around its files."""


class Gone(Exception):  # noqa: N818 - no fault of anyone's
    """The client went away."""


async def save(request: Request, paths: Sequence[Path], names: Sequence[str], most: int) -> None:
    """Write the body's pictures to `paths`: the body itself if there is one, or the files of a form.

    names: of the form's fields; a single file may have any. most: bytes of all files together.

    Fault 400 for another form, 413 as soon as more bytes have arrived, 415 for a body that is packed, 503 if
    the disk takes no more; Gone.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Fault(415, "the body is compressed; send the picture as it is")
    form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    most += _AROUND if form else 0
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise _too_large(most)
    counted = Request(request.scope, _counted(request, most))
    try:
        if form:
            await _save_form(counted, paths, names)
        elif len(paths) > 1:
            raise Fault(400, f"send a form (multipart/form-data) with the files {' and '.join(names)}")
        else:
            await _save_body(counted, paths[0])
    except ClientDisconnect as error:
        raise Gone from error
    except HTTPException as error:
        raise Fault(400, f"the form cannot be read ({error.detail}); send its files alone") from error
    except FormParserError as error:
        raise Fault(400, f"the form cannot be read ({error}); send its files alone") from error
    except OSError as error:
        raise Fault(503, f"the picture cannot be stored ({error.strerror}); free some space") from error
    if any(path.stat().st_size == 0 for path in paths):
        raise Fault(400, "the body is empty; send a picture")


async def _save_body(request: Request, path: Path) -> None:
    with path.open("xb") as file:
        async for part in request.stream():
            file.write(part)


async def _save_form(request: Request, paths: Sequence[Path], names: Sequence[str]) -> None:
    async with request.form(max_files=len(paths), max_fields=1, max_part_size=_AROUND) as form:
        files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) != len(paths) or len(form.multi_items()) != len(files):
            raise Fault(400, f"the form must hold {len(paths)} files and nothing else: {', '.join(names)}")
        by_name = dict(files) if len(paths) > 1 else {names[0]: files[0][1]}
        for path, name in zip(paths, names, strict=True):
            if name not in by_name:
                raise Fault(400, f"the form holds no file {name}; its files are called {', '.join(names)}")
            with path.open("xb") as file:
                await asyncio.to_thread(shutil.copyfileobj, by_name[name].file, file, 1 << 20)


class _counted:  # noqa: N801 - used as a function
    """`receive`, which ends a body that grows too large."""

    def __init__(self, request: Request, most: int) -> None:
        self.receive, self.most, self.left = request.receive, most, most

    async def __call__(self) -> Message:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise _too_large(self.most)
        return message


def _too_large(most: int) -> Fault:
    return Fault(413, f"the body has more than {most:,} bytes; send a smaller picture")
