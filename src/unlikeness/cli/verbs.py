"""The verbs of the command line, and the words between them: help, version, what a path may be.

A verb's file imports nothing heavy at its head (typer and the standard library), so that `--help` is quick;
what does the work is imported inside the function, after paths and settings are checked. A new verb is a file
beside this one and a line in `VERBS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from unlikeness.errors import UsageError
from unlikeness.settings import outdated

__all__ = ["HELP", "VERBS", "app_of", "check_words", "command_of", "flags_of", "help_of", "with_new_flags"]

VERBS = {
    "protect": ("protect:protect", "Change pictures faintly, against personalization."),
    "export": ("export:export", "Write a trained protector as one ONNX file."),
    "immunize": ("immunize:immunize", "Make a model hard to teach named subjects."),
    "personalize": ("personalize:personalize", "Fine-tune a model on a subject, as an attacker would."),
    "generate": ("generate:generate", "Draw pictures from a model."),
    "verify": ("verify:verify", "Attack a model in every known way; certify the result."),
    "demo": ("demo:demo", "Tell the whole story on a small model, as one page."),
    "train-protector": ("train_protector:train_protector", "Train the network of protect --method rid."),
    "measure": ("measure:app", "Measure visibility, or similarity to a subject."),
    "toybox": ("toybox:app", "Draw the embedded world, or train its models."),
}
"""Name -> module here and function, or group of functions; and a line for `--help`, which has this order."""

FORMER = {
    "protect": {"--scale": "--at"},
    "personalize": {"--scale": "--preset"},
    "immunize": {"--scale": "--preset", "--behaviour": "--protective-output"},
    "verify": {"--scale": "--preset", "--behaviour": "--protective-output"},
}
"""Verb -> flag of the last release -> its new name."""

_MAY_BE_EMPTY = ("--prompt", "--negative-prompt", "--context", "--target-noun")

HELP = ("-h", "--help")


def _show_version(wanted: bool) -> None:
    if wanted:
        from unlikeness import __version__

        typer.echo(f"unlikeness {__version__}")
        raise typer.Exit


def _frame(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def app_of(names: Sequence[str] = tuple(VERBS)) -> typer.Typer:
    """The command line with these verbs; all, if none are given."""
    app = typer.Typer(
        name="unlikeness",
        help="Make a likeness harder to copy for text-to-image models, and measure how much harder.",
        epilog="Set UNLIKENESS_TRACEBACK=1 to see where an error came from.",
        add_completion=False,
        rich_markup_mode=None,  # plain text: a frame around it takes longer than all else that help does
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": list(HELP)},
    )
    app.callback()(_frame)
    for name in names:
        home, summary = VERBS[name]
        module, _, attribute = home.partition(":")
        verb: Any = getattr(import_module(f"unlikeness.cli.{module}"), attribute)
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, short_help=summary)
        else:
            app.command(name, short_help=summary)(verb)
    return app


def check_words(arguments: Sequence[str]) -> None:
    """UsageError for an empty argument, which an unset variable leaves behind: as a path it would be the
    current folder. Words for a model may be empty.
    """
    for before, word in zip(["", *arguments], arguments, strict=False):
        option = before if word == "" else word[:-1]
        if (word == "" or (word.startswith("--") and word.endswith("="))) and option not in _MAY_BE_EMPTY:
            raise UsageError(
                f"there is an empty argument{f' after {option}' if option else ''}, as of a variable that is "
                "not set; give a value, or leave it out"
            )


def command_of(arguments: Sequence[str]) -> Any:
    """What parses and runs these arguments: only the verb that they begin with is set up, if it is one."""
    first = next(iter(arguments), "")
    return typer.main.get_command(app_of([first]) if first in VERBS else app_of())


def flags_of(command: Any, arguments: Sequence[str]) -> dict[str, str]:
    """The flags of the command that is named, by the settings that they set."""
    for name in arguments:
        command = getattr(command, "commands", {}).get(name, command)
    return {one.name: one.opts[0] for one in command.params if one.opts[0].startswith("--")}


def with_new_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the last release's flags under their new names; a line on stderr names each."""
    former = FORMER.get(next(iter(arguments), ""), {})
    found = []
    for i, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        if flag in former and "--" not in arguments[:i]:
            outdated(f"{flag} is called {former[flag]} now; the old name works for one more release")
            word = f"{former[flag]}{equals}{value}"
        found.append(word)
    return found


def help_of(command: Any, arguments: Sequence[str]) -> str | None:
    """The help that these arguments ask for, if they are verbs and `--help` and nothing else.

    The parser would first set up its checks of values, which takes longer than the help itself.
    """
    *verbs, last = arguments or [""]
    if last not in HELP:
        return None
    context = typer.Context(command, info_name="unlikeness", help_option_names=list(HELP))
    for name in verbs:
        found = getattr(command, "commands", {}).get(name)
        if found is None:
            return None
        command = found
        context = typer.Context(command, info_name=name, parent=context)
    text: str = command.get_help(context)
    return text
