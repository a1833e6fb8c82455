"""The command line: `unlikeness VERB ...`. One file per verb, no logic in any of them.

A verb's file imports nothing heavy at its head (typer and the standard library), so that `--help` is quick;
what does the work is imported inside the function. A new verb is a file here and a line below "The verbs".
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from unlikeness.cli import (
    demo,
    export,
    generate,
    immunize,
    measure,
    personalize,
    protect,
    toybox,
    train_protector,
    verify,
)
from unlikeness.errors import UnlikenessError, one_line

__all__ = ["app", "main"]

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports
_NO_MEMORY = "out of memory: close other programs, or ask for less at a time (--batch-size)"

app = typer.Typer(
    name="unlikeness",
    help="Keep a likeness from being copied by text-to-image models.",
    epilog="Set UNLIKENESS_TRACEBACK=1 to see where an error came from.",
    add_completion=False,
    rich_markup_mode="markdown",  # in which [n/255] stands for itself
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from unlikeness import __version__

        typer.echo(f"unlikeness {__version__}")
        raise typer.Exit


@app.callback()
def _frame(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


# The verbs, in the order in which `--help` shows them.
app.command("protect")(protect.protect)
app.command("export")(export.export)
app.command("immunize")(immunize.immunize)
app.command("personalize")(personalize.personalize)
app.command("generate")(generate.generate)
app.command("verify")(verify.verify)
app.command("demo")(demo.demo)
app.command("train-protector")(train_protector.train_protector)
app.add_typer(measure.app, name="measure")
app.add_typer(toybox.app, name="toybox")


def _fail(text: str, status: int) -> int:
    """One line on stderr, whatever the message looks like."""
    if os.environ.get("UNLIKENESS_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exc()
    typer.echo(f"unlikeness: {one_line(text)}", err=True)
    return status


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch found too little memory, on an accelerator or for the CPU; torch is not imported here."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (without the program's name; default `sys.argv`).

    Returns the exit status. 0: done. 1: it could not be done. 2: it was asked wrongly. 130: interrupted.
    A fault in the program itself is the one thing that shows a traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = typer.main.get_command(app)
    if isinstance(sys.stdout, TextIOWrapper):  # a file name or a sign that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command.main(arguments, prog_name="unlikeness", standalone_mode=False)
    except UnlikenessError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:  # what the parser of the command line objects to
        context = getattr(error, "ctx", None)
        where = "unlikeness" if context is None else context.command_path
        return _fail(f"{error.format_message()} (see {where} --help)", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except MemoryError:
        return _fail(_NO_MEMORY, 1)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(_NO_MEMORY, 1)
    if status == INTERRUPTED:
        return _fail("interrupted", INTERRUPTED)
    return int(status or 0)
