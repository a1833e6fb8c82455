"""Bodies of requests, written to files while they arrive. What a client announces is never trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from unlikeness.serve.faults import Fault

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["AROUND", "Gone", "announced", "is_form", "save", "write_body", "write_form"]

AROUND = 64 << 10
"""Bytes that a form may hold around its files."""
_MOST_HEAD = 8 << 10
"""Bytes of the headers of one file of a form."""

Place = Callable[[str, str], Path]
"""(field, file name) of a form's file -> where it goes. May raise a Fault."""


class Gone(Exception):  # noqa: N818 - no fault of anyone's
    """The client went away."""


def is_form(request: Request) -> bool:
    """Whether the body is a form."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def announced(request: Request) -> int | None:
    """The bytes that the body has by its headers."""
    said = request.headers.get("content-length", "")
    return int(said[:20]) if said.isdecimal() else None


async def save(request: Request, paths: Sequence[Path], names: Sequence[str], most: int) -> None:
    """Write the body's pictures to `paths`: the body itself if there is one, or the files of a form.

    names: of the form's fields; a single file may have any. most: bytes of all files together. Raises as
    `write_form` does.
    """
    taken: set[str] = set()

    def place(field: str, name: str) -> Path:
        if len(taken) == len(paths):
            raise Fault(400, f"the form must hold {_files(names)} and nothing else")
        known = field if len(paths) > 1 else names[0]
        if known not in names or known in taken:
            left = next(name for name in names if name not in taken)
            raise Fault(400, f"the form holds no file {left}; its files are called {', '.join(names)}")
        taken.add(known)
        return paths[names.index(known)]

    if is_form(request):
        await write_form(request, place, most)
        if len(taken) < len(paths):
            raise Fault(400, f"the form must hold {_files(names)} and nothing else")
    elif len(paths) > 1:
        raise Fault(400, f"send a form (multipart/form-data) with the files {' and '.join(names)}")
    else:
        await write_body(request, paths[0], most)
    if any(path.stat().st_size == 0 for path in paths):
        raise Fault(400, "the body is empty; send a picture")


def _files(names: Sequence[str]) -> str:
    return "one file" if len(names) == 1 else f"the files {' and '.join(names)}"


async def write_body(request: Request, path: Path, most: int) -> None:
    """Write the body to the new file `path`. Raises as `write_form` does."""
    with _Receiving(request, most) as body, path.open("xb") as file:
        async for part in body.stream():
            file.write(part)


async def write_form(request: Request, place: Place, most: int) -> None:
    """Write the files of a form to new files, each as it arrives.

    most: bytes of all files together.

    Fault 400 for another form and for two files of one place, 413 as soon as more bytes have arrived, 415 for
    a body that is packed, 503 if the disk takes no more; Gone.
    """
    _, options = parse_options_header(request.headers["content-type"])
    boundary, form = options.get(b"boundary"), _Form(place)
    if not boundary:
        raise _unreadable("it names no boundary")
    with _Receiving(request, most + AROUND) as body:
        try:
            parser = MultipartParser(boundary, form.callbacks())
            async for part in body.stream():
                parser.write(part)
        finally:
            form.close()
    if not form.whole:
        raise _unreadable("it breaks off")


class _Form:
    """What a parser of forms calls."""

    def __init__(self, place: Place) -> None:
        self.whole = False
        self._place = place
        self._file: BinaryIO | None = None
        self._head: list[bytes] = [b"", b""]
        self._said = b""

    def callbacks(self) -> MultipartCallbacks:
        """By the parser's names."""
        return {
            "on_part_begin": self._begin, "on_header_field": self._field, "on_header_value": self._value,
            "on_header_end": self._line, "on_headers_finished": self._open, "on_part_data": self._data,
            "on_part_end": self.close, "on_end": self._end,
        }  # fmt: skip

    def close(self) -> None:
        """Close the open file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _begin(self) -> None:
        self._head, self._said, self._size = [b"", b""], b"", 0

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._add(0, data[start:end])

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._add(1, data[start:end])

    def _add(self, which: int, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MOST_HEAD:
            raise _unreadable("a file's headers are too long")
        self._head[which] += data

    def _line(self) -> None:
        if self._head[0].lower() == b"content-disposition":
            self._said = self._head[1]
        self._head = [b"", b""]

    def _open(self) -> None:
        _, options = parse_options_header(self._said)
        if b"name" not in options or b"filename" not in options:
            raise _unreadable("one of its parts is no file")
        field, name = (options[key].decode("utf-8", "replace") for key in (b"name", b"filename"))
        try:
            self._file = self._place(field, name).open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise Fault(400, f"two files of the form go to one place, {name}; rename one") from error

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._file.write(data[start:end])

    def _end(self) -> None:
        self.whole = True


class _Receiving:
    """The request, whose body ends where it grows too large; and its errors as faults."""

    def __init__(self, request: Request, most: int) -> None:
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Fault(415, "the body is compressed; send it as it is")
        if (announced(request) or 0) > most:
            raise _too_large(most)
        self._request, self._most, self._left = request, most, most

    def __enter__(self) -> Request:
        return Request(self._request.scope, self._receive)

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        if isinstance(error, ClientDisconnect):
            raise Gone from error
        if isinstance(error, FormParserError):
            raise _unreadable(str(error)) from error
        if isinstance(error, OSError):
            raise Fault(503, f"the body cannot be stored ({error.strerror}); free some space") from error

    async def _receive(self) -> Message:
        message = await self._request.receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self._most)
        return message


def _unreadable(reason: str) -> Fault:
    return Fault(400, f"the form cannot be read ({reason}); send its files alone")


def _too_large(most: int) -> Fault:
    return Fault(413, f"the body has more than {most:,} bytes; send less at a time")
