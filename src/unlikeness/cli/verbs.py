"""The commands: their groups and one-line help, old names of flags, help and version.

The file of a command imports nothing heavy at its head (typer and the standard library), so that `--help` is
quick. Its function validates paths and settings before it imports torch. A new command is a file here and a
line in `VERBS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from unlikeness.cli.options import GROUPS
from unlikeness.errors import UsageError
from unlikeness.extras import check_extra
from unlikeness.settings import outdated

__all__ = [
    "HELP", "NEED_MODELS", "VERBS", "app_of", "check_extras", "check_words", "command_of", "flags_of",
    "help_of", "with_new_flags",
]  # fmt: skip

VERBS = {
    "protect": ("Pictures", "protect:protect", "Add a faint perturbation against personalization."),
    "surrogates": ("Pictures", "surrogates:surrogates", "List the autoencoders to protect against, by name."),
    "train-protector": ("Pictures", "train_protector:train_protector", "Train the network of protect."),
    "export": ("Pictures", "export:export", "Write that network as an ONNX file."),
    "page": ("Pictures", "page:page", "Write a web page that protects pictures in the browser."),
    "serve": ("Pictures", "serve:serve", "Protect pictures over HTTP, and serve that page."),
    "immunize": ("Models", "immunize:immunize", "Make a model hard to personalize on named subjects."),
    "verify": ("Models", "verify:verify", "Attack a model in every known way; certify the worst result."),
    "publish": ("Models", "publish:publish", "Put an immunized model or a protector on the hub, private."),
    "generate": ("Models", "generate:generate", "Generate pictures with a model."),
    "personalize": ("Research", "personalize:personalize", "Fine-tune a model as an attacker does."),
    "purify": ("Research", "purify:purify", "Clean pictures of a perturbation, as an attacker does."),
    "measure": ("Research", "measure:app", "Measure visibility, or similarity to a subject."),
    "bench": ("Research", "bench:app", "Run every defence against every attacker, and report it."),
    "toybox": ("Toybox", "toybox:app", "Render the embedded toy world, or train its models."),
    "demo": ("Toybox", "demo:demo", "Show attack and protection on the toybox, as one page."),
}
"""Name -> group, module here and its function or group of functions, and the line for `--help`."""

NEED_MODELS = (
    "train-protector", "immunize", "verify", "publish", "generate", "personalize",
    "measure latents", "measure similarity", "measure spoiled", "bench", "toybox", "demo",
)  # fmt: skip
"""Commands that need the extra `models`, whatever their options. `protect` and `purify` decide by method."""

FORMER = {
    "protect": {"--scale": "--at"},
    "personalize": {"--scale": "--preset"},
    "immunize": {"--scale": "--preset", "--behaviour": "--protective-output"},
    "verify": {
        "--scale": "--preset", "--behaviour": "--protective-output", "--reader": "--classifier",
        "--others": "--unprotected", "--others-held-out": "--unprotected-held-out",
    },
}  # fmt: skip
"""Command -> flag of the last release -> its new name."""

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


class _Command(TyperCommand):
    """A command whose help is in groups (see `options.GROUPS`), and that drops no input without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _check_repeated(self.get_params(ctx), args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in GROUPS}
        for one in self.get_params(ctx):
            line = one.get_help_record(ctx)
            if line is not None:
                usual = GROUPS[0] if one.param_type_name == "argument" else GROUPS[-1]
                groups[getattr(one, "rich_help_panel", None) or usual].append(line)
        _write(formatter, groups)


class _Group(TyperGroup):
    """The commands in groups, in the order of their use."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, (group, _, summary) in VERBS.items():
            groups.setdefault(group, []).append((name, summary))
        _write(formatter, groups)


def _check_repeated(options: Sequence[Any], arguments: Sequence[str]) -> None:
    """UsageError for an input, an output or a list with commas that is given twice: the first would be lost.

    Of other options the last value counts, as in most programs.
    """
    by_name = {name: one for one in options for name in one.opts if name.startswith("-")}
    seen: set[str] = set()
    words = iter(arguments)
    for word in words:
        if word == "--":
            return
        name, equals, _ = word.partition("=") if word.startswith("--") else (word[:2], word[2:], "")
        option = by_name.get(name)
        if option is None or getattr(option, "is_flag", False):
            continue
        if not equals:
            next(words, None)  # its value
        drops = option.rich_help_panel == GROUPS[0] or "," in (option.metavar or "")
        single = drops and not option.multiple
        if option.name in seen and single:
            raise UsageError(f"{name} is given twice, and it takes one value; leave one of them out")
        seen.add(option.name)


def _write(formatter: Any, groups: Mapping[str, list[tuple[str, str]]]) -> None:
    for title, lines in groups.items():
        if lines:
            with formatter.section(title):
                formatter.write_dl(lines)


def app_of(names: Sequence[str] = tuple(VERBS)) -> typer.Typer:
    """The command line with these commands; all, if none are given."""
    app = typer.Typer(
        name="unlikeness",
        cls=_Group,
        help="Make a likeness harder to copy for text-to-image models, and measure how much harder.",
        epilog="Set UNLIKENESS_TRACEBACK=1 to see where an error came from.",
        add_completion=False,
        rich_markup_mode=None,  # plain text: a frame around it takes longer than all else that help does
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": list(HELP)},
    )
    app.callback()(_frame)
    for name in names:
        _, home, summary = VERBS[name]
        module, _, attribute = home.partition(":")
        verb: Any = getattr(import_module(f"unlikeness.cli.{module}"), attribute)
        if isinstance(verb, typer.Typer):
            for one in verb.registered_commands:
                one.cls = _Command
            app.add_typer(verb, name=name, short_help=summary)
        else:
            app.command(name, cls=_Command, short_help=summary)(verb)
    return app


def check_words(arguments: Sequence[str]) -> None:
    """UsageError for an empty argument, which is what an unset variable of a shell leaves behind.

    As a path it would be the current folder. A prompt or a noun may be empty.
    """
    for before, word in zip(["", *arguments], arguments, strict=False):
        option = before if word == "" else word[:-1]
        if (word == "" or (word.startswith("--") and word.endswith("="))) and option not in _MAY_BE_EMPTY:
            raise UsageError(
                f"there is an empty argument{f' after {option}' if option else ''}, perhaps an unset "
                "variable; give a value, or leave it out"
            )


def check_extras(arguments: Sequence[str]) -> None:
    """UnlikenessError if these arguments begin with a command whose extra is not installed."""
    for words in (arguments[:1], arguments[:2]):
        if (name := " ".join(words)) in NEED_MODELS:
            check_extra("models", name)


def command_of(arguments: Sequence[str]) -> Any:
    """What parses and runs these arguments. Only the command that they begin with is set up, if it is one."""
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
    """The help that these arguments ask for, if they are commands and `--help` and nothing else.

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
    return text + _of_other_packages(verbs)


_METHODS = ("protect", "immunize", "personalize", "purify")
"""Commands with methods, which other packages may add to: see `plugins`."""


def _of_other_packages(verbs: Sequence[str]) -> str:
    """A line of the help that names the methods of other packages; "" if there are none."""
    from importlib.metadata import entry_points

    if len(verbs) != 1 or verbs[0] not in _METHODS:
        return ""
    names = sorted({entry.name for entry in entry_points(group=f"unlikeness.{verbs[0]}")})
    return f"\n\nMethods of other packages: {', '.join(names)}." if names else ""
