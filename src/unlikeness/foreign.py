"""Untrusted files: JSON and YAML read in bounded time and memory, from regular files only.

A reader here raises `UnreadableError` with a reason of a few words ("it is nested too deeply"). The caller
knows the purpose of the file and makes a sentence of it.
"""

from __future__ import annotations

import json
import math
import re
import stat
from pathlib import Path
from typing import Any

from unlikeness.errors import UnlikenessError, UsageError, one_line

__all__ = [
    "LARGEST", "UnreadableError", "check_file", "parse_json", "parse_yaml", "read", "read_json", "reason",
]  # fmt: skip

LARGEST = 1 << 20
"""Default bound on the bytes of a configuration or a record."""

_DEEPEST = 64
"""Nested lists and objects. Real files have a dozen levels."""

_WIDEST = 1 << 63
"""Bound on whole numbers: tensor libraries have 64 bits."""

_MOST_NODES = 20_000
"""Values in a YAML file, since Python reads YAML slowly."""

_ADVICE = re.compile(
    r"weights_only|trust_remote_code|(?:pip|conda|apt|brew) install|https?://|set_int_max", re.IGNORECASE
)
"""Advice of libraries to which an untrusted file must never lead a user."""


class UnreadableError(ValueError):
    """A file cannot be read. The text is the reason, one line without a full stop."""


def reason(error: BaseException, *, most: int = 200) -> str:
    """Why a library failed, in one short line: its first sentences, without advice to run or install things.

    The line names a missing library.
    """
    if isinstance(error, ImportError):
        name = getattr(error, "name", None) or _library(str(error))
        return f"it needs {name or 'a library'}, which is not installed"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = one_line(str(error))
    if isinstance(error, KeyError):
        text = f"{text} is missing or unknown"
    said = []
    for sentence in re.split(r"(?<=[.!?;]) ", text):
        if _ADVICE.search(sentence):
            break
        said.append(sentence)
    short = " ".join(said).rstrip(".:; ")
    short = short if len(short) <= most else f"{short[:most]}..."
    return short or type(error).__name__


def check_file(path: Path, folder: Path | None = None) -> None:
    """UnreadableError unless `path` is a regular file (no pipe, device or folder) inside `folder`.

    A link may lead out of the folder only into the hub cache's own store, which holds all of its files. Any
    other file could be a secret, which would be copied into a model and published.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UnreadableError(reason(error)) from error
    if not stat.S_ISREG(mode):
        raise UnreadableError("it is no regular file")
    if folder is None:
        return
    home, real = folder.resolve(), path.resolve()
    homes = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    if not any(real.is_relative_to(one) for one in homes):
        raise UnreadableError("it is a link that leads out of the folder")


def read(path: Path, *, folder: Path | None = None, most: int = LARGEST) -> bytes:
    """The bytes of a regular file (see `check_file`). UnreadableError if there are more than `most`."""
    check_file(path, folder)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UnreadableError(reason(error)) from error
    if len(data) > most:
        raise UnreadableError(f"it is larger than {most} bytes")
    return data


def read_json(path: Path, *, folder: Path | None = None, most: int = LARGEST, infinite: bool = False) -> Any:
    """The content of a JSON file: see `read` and `parse_json`."""
    return parse_json(read(path, folder=folder, most=most), infinite=infinite)


def parse_json(text: str | bytes, *, surrogates: bool = False, infinite: bool = False) -> Any:
    """The value of a JSON text; bytes are UTF-8.

    UnreadableError for other text, more than 64 nested levels, a key that occurs twice, and a number that is
    not finite or needs more than 64 bits. UnreadableError also for text that is not Unicode (half of a
    surrogate pair), because it could not be written again. infinite: allow infinity, but not NaN. surrogates:
    allow half pairs.
    """
    try:
        value = json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            parse_constant=_infinity if infinite else _no_constant,
            object_pairs_hook=_once,
        )
    except UnreadableError:
        raise
    except RecursionError as error:
        raise UnreadableError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise UnreadableError("it is no UTF-8 text") from error
    except ValueError as error:
        raise UnreadableError(f"it is no JSON: {reason(error)}") from error
    _check(value, surrogates, infinite)
    return value


def read_lines(path: Path, what: str) -> dict[Any, Any]:
    """The lines NAME: VALUE of a YAML file. what: the file in messages.

    UnlikenessError for a file that cannot be read; UsageError for one that holds something else.
    """
    try:
        content = parse_yaml(read(path).decode("utf-8"))
    except (UnreadableError, UnicodeDecodeError) as error:
        raise UnlikenessError(f"{what} {path} cannot be read ({reason(error)}); give a YAML file") from error
    if not isinstance(content, dict):
        raise UsageError(f"{what} {path} must be lines NAME: VALUE")
    return content


def parse_yaml(text: str, loader: type[Any] | None = None) -> Any:
    """The value of a YAML text. loader: a subclass of yaml's safe or base loader; default: the safe one.

    UnreadableError for other text, more than 64 nested levels, very many values, and aliases, with which a
    few bytes become gigabytes.
    """
    import yaml

    base: Any = loader or yaml.SafeLoader

    class Bounded(base):  # type: ignore[misc]
        depth = nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise UnreadableError("it has an alias (*name), which is not read: write the value out")
            self.depth, self.nodes = self.depth + 1, self.nodes + 1
            if self.depth > _DEEPEST:
                raise UnreadableError("it is nested too deeply")
            if self.nodes > _MOST_NODES:
                raise UnreadableError(f"it has more than {_MOST_NODES} values")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    try:
        value = yaml.load(text, Bounded)
        _check(value, surrogates=True)
    except UnreadableError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UnreadableError(reason(error)) from error
    return value


def _library(text: str) -> str:
    """The library in the message of an ImportError without a name."""
    found = re.search(r"requires the (?:following )?(\S+) library", text) or re.search(
        r"No module named '([\w.]+)'", text
    )
    return found[1] if found else ""


def _no_constant(name: str) -> float:
    raise UnreadableError(f"it holds {name}, which is no number")


def _infinity(name: str) -> float:
    return _no_constant(name) if name == "NaN" else float(name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UnreadableError(f"it has {one_line(twice)[:60]!r} twice")
    return found


def _check(value: Any, surrogates: bool, infinite: bool = False) -> None:
    """Check depth, numbers and texts, without recursion."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST + 1):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                for key in one:
                    _check_scalar(key, surrogates, infinite)
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
            else:
                _check_scalar(one, surrogates, infinite)
        if not below:
            return
        level = below
    raise UnreadableError("it is nested too deeply")


def _check_scalar(value: Any, surrogates: bool, infinite: bool) -> None:
    if isinstance(value, str):
        if surrogates or value.isascii():
            return
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UnreadableError("it holds half of a surrogate pair, which is no text") from error
    elif isinstance(value, int):
        if not -_WIDEST <= value < _WIDEST:
            raise UnreadableError("it holds a whole number of more than 64 bits")
    elif isinstance(value, float) and not infinite and not math.isfinite(value):
        raise UnreadableError("it holds a number that is not finite")
