"""Standard input, output and error, which may be closed, a pipe without a reader, or on a full disk."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

TYPE_CHECKING = False
if TYPE_CHECKING:  # as `typing` has it, which is not imported: an interrupt may come this early
    from typing import TextIO

__all__ = ["prepare"]


def prepare() -> None:
    """Make the streams safe to write to.

    A closed stream (daemons, `2>&-`, pythonw) becomes the null device. Otherwise the next file to be opened
    would get its number, and messages would be written into that file. A reader that has gone (`| head`) does
    not stop the work. Errors of writing to stderr are ignored; to stdout they are errors.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
    sys.stdout = _of(sys.stdout, all_errors=False)
    sys.stderr = _of(sys.stderr, all_errors=True)
    vars(sys).update(__stdout__=sys.stdout, __stderr__=sys.stderr)  # the former streams are closed now


def _of(stream: TextIO | None, *, all_errors: bool) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - as long as the process
    if type(stream) is not TextIOWrapper:  # of a test or a notebook
        return stream
    name, errors, by_line, at_once = (
        stream.encoding, stream.errors, stream.line_buffering, stream.write_through,
    )  # fmt: skip
    made = _Patient(
        stream.detach(), encoding=name, errors=errors, line_buffering=by_line, write_through=at_once
    )
    made.all_errors = all_errors
    return made


class _Patient(TextIOWrapper):
    """A text stream that ignores a missing reader. all_errors: it ignores a full disk as well."""

    all_errors = False

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Send the rest of the output to the null device, also at the end of the process."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)
        if not (self.all_errors or isinstance(error, BrokenPipeError)):
            raise OSError(error.errno, error.strerror, "standard output") from error
