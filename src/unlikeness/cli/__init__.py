"""The command line: `unlikeness COMMAND ...`. One file a command; `verbs` lists them.

This module imports only the standard library, so that an early interrupt is reported like any other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper

from unlikeness.cli import signals, streams
from unlikeness.endings import undo_all
from unlikeness.errors import UnlikenessError, one_line

__all__ = ["main"]

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports
_NO_MEMORY = "out of memory: close other programs, or give a smaller --batch-size"


def _fail(text: str, status: int) -> int:
    """Print the message as one line on stderr."""
    if os.environ.get("UNLIKENESS_TRACEBACK", "0") not in ("", "0"):
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"unlikeness: {one_line(text)}\n")
    sys.stderr.flush()
    return status


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether this is torch's error for too little memory, on an accelerator or the CPU."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (without the program's name; default `sys.argv`).

    Returns the exit status. 0: done. 1: it could not be done. 2: wrong arguments. 130: interrupted. 143 and
    129: terminated. Only a fault in the program itself shows a traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    own = argv is None  # not called from a test or another program
    try:
        if own:
            signals.install()
            streams.prepare()
        if isinstance(sys.stdout, TextIOWrapper):  # for names and signs that the terminal cannot show
            sys.stdout.reconfigure(errors="backslashreplace")
        status = _status(arguments)
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:
        if own:
            signals.uninstall()
    if status != INTERRUPTED:
        return status
    status = _fail(*signals.outcome())
    if own:  # at once: the interpreter's own end would wait for threads, and for torch
        undo_all()
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)
    return status


def _status(arguments: list[str]) -> int:
    """Run the command, and report errors."""
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except UnlikenessError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except MemoryError:
        return _fail(_NO_MEMORY, 1)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(_NO_MEMORY, 1)
    return status


def _run(arguments: list[str]) -> int:
    """Parse the arguments and run the command; the parser's errors are one line as well."""
    import typer

    from unlikeness.cli import verbs
    from unlikeness.settings import typed

    verbs.check_words(arguments)
    command = verbs.command_of(arguments)
    if (text := verbs.help_of(command, arguments)) is not None:
        sys.stdout.write(f"{text}\n")
        return 0
    verbs.check_extras(arguments)
    try:
        with typed(verbs.flags_of(command, arguments)):
            arguments = verbs.with_new_flags(arguments)
            return int(command.main(arguments, prog_name="unlikeness", standalone_mode=False) or 0)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        where = "unlikeness" if context is None else context.command_path
        return _fail(f"{error.format_message()} (see {where} --help)", error.exit_code)
    except typer.Abort:
        return INTERRUPTED
