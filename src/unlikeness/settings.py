"""Settings of the methods: typed, documented field by field, and strict.

A settings class is a frozen dataclass whose fields are made by `setting(...)`, which records the unit, the
source and the allowed values beside the default. The same record checks a value when an object is made and
tells the command line what can be set.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from unlikeness.errors import UsageError

__all__ = [
    "Checked", "build", "current_names", "given_in", "named", "outdated", "pairs", "setting", "typed",
    "with_default",
]  # fmt: skip

_log = logging.getLogger(__name__)

S = TypeVar("S", bound="Checked")


@dataclass(frozen=True)
class _Typed:
    """How settings are typed on the command line that is being run, and which old names were reported."""

    flags: dict[str, str]
    told: set[str]


_TYPED: ContextVar[_Typed | None] = ContextVar("typed", default=None)


@contextmanager
def typed(flags: Mapping[str, str]) -> Iterator[None]:
    """Inside, messages name a setting as it is typed: by its flag ({"steps": "--steps"}), else by --set."""
    token = _TYPED.set(_Typed(dict(flags), set()))
    try:
        yield
    finally:
        _TYPED.reset(token)


def named(name: str) -> str:
    """The setting `name` in a message: its flag or "--set NAME" on the command line, its name in Python."""
    how = _TYPED.get()
    return name if how is None else how.flags.get(name, f"--set {name}")


def given_in(place: str, names: Iterable[str]) -> None:
    """Let messages of the command line name these settings as "PLACE: NAME", such as those of a YAML file."""
    how = _TYPED.get()
    if how is not None:
        how.flags.update({name: f"{place}: {name}" for name in names})


def outdated(text: str) -> None:
    """Say once what works for one more release: on stderr of the command line, in the log elsewhere."""
    how = _TYPED.get()
    if how is None:
        _warn(text)
    elif text not in how.told:
        how.told.add(text)
        sys.stderr.write(f"unlikeness: {text}\n")


@cache
def _warn(text: str) -> None:
    _log.warning(text)


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    source: str = "",
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    formerly: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its documentation, unit, source and bounds.

    `above` is exclusive, `at_least` and `at_most` are inclusive. In a list the bounds and `choices` hold for
    each element. formerly: old names, which `build` accepts with a warning.
    """
    metadata = {
        "doc": doc,
        "unit": unit,
        "source": source,
        "above": above,
        "at_least": at_least,
        "at_most": at_most,
        "choices": choices,
        "formerly": formerly,
    }
    return dataclasses.field(default=default, metadata=metadata)


def with_default(cls: type[Checked], name: str, default: Any, **changes: Any) -> Any:
    """The field `name` of a settings class with another default, for a subclass.

    changes: other values for its documentation, source or bounds.
    """
    metadata = {**cls.__dataclass_fields__[name].metadata, **changes}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Fields made by `setting`, held to their types and bounds; a `UsageError` names the wrong one."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _checked(field, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)


def build(cls: type[S], values: Mapping[str, object]) -> S:
    """`cls(**values)`, where a value may also be the text of a flag ("12", "true").

    Raises:
        UsageError: an unknown name (the message lists the closest three) or a value that does not fit.
    """
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = current_names(cls, values)
    for name in values:
        if name not in fields:
            raise _unknown(cls, name, list(fields))
    parsed: dict[str, Any] = {
        name: _parsed(name, hints[name], value) if isinstance(value, str) else value
        for name, value in values.items()
    }
    return cls(**parsed)


def _unknown(cls: type[Checked], name: str, fields: list[str]) -> UsageError:
    how = _TYPED.get()
    if how is not None and " " not in how.flags.get(name, " "):
        return UsageError(f"{named(name)} is no setting of {cls.__name__}; leave it out")
    near = difflib.get_close_matches(name, fields, n=3)
    others = near or difflib.get_close_matches(name, fields, n=3, cutoff=0.0)
    hint = ""
    if others:
        listed = " or ".join(filter(None, [", ".join(others[:-1]), others[-1]]))
        hint = f" (did you mean {listed}?)" if near else f" (the closest are {listed})"
    return UsageError(f"{named(name)} is no setting of {cls.__name__}{hint}")


def current_names(cls: type[Checked], values: Mapping[str, object]) -> dict[str, object]:
    """`values` under the current names of the fields. An old name is logged once.

    UsageError if a value is given under its old and its new name.
    """
    old = {name: field.name for field in dataclasses.fields(cls) for name in field.metadata["formerly"]}
    found: dict[str, object] = {}
    for name, value in values.items():
        now = old.get(name, name)
        if now in found:
            raise UsageError(f"{named(now)} is given twice, once under its old name; leave one out")
        if now != name:
            outdated(f"{name} is called {now} now; the old name works for one more release")
        found[now] = value
    return found


def pairs(
    option: str,
    texts: Sequence[str] | None,
    flags: Mapping[str, object] | None = None,
    *,
    form: str = "NAME=VALUE",
) -> dict[str, object]:
    """Values by name: of `flags` those that are given (not None), and the texts NAME=VALUE of `option`.

    A name may stand behind another one and a dot, which is left as it is. form: what an error says that texts
    look like. UsageError for a text of another form, and for a name that is given twice.
    """
    values = {name: value for name, value in (flags or {}).items() if value is not None}
    how = _TYPED.get()
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{option} {text} must be {form}")
        whose, dot, which = name.strip().rpartition(".")
        name = f"{whose}{dot}{which.replace('-', '_')}"
        if name in values:
            raise UsageError(f"{named(name)} is given twice, then by {option} {text}; leave one out")
        if how is not None:
            how.flags[name] = f"{option} {name}"
        values[name] = value.strip()
    return values


def _checked(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """`value` if it fits the field (an int for a float becomes a float), else a `UsageError`."""
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{named(field.name)} must be a list, not {value!r}")
        return tuple(_checked(field, get_args(hint)[0], element) for element in value)
    kinds = get_args(hint) or (hint,)
    if float in kinds and type(value) is int:
        value = float(value)
    if type(value) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise UsageError(f"{named(field.name)} must be {wanted}, not {value!r}")
    low, high = field.metadata["at_least"], field.metadata["at_most"]
    if isinstance(value, float | int) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{named(field.name)} must be a finite number, not {value}")
        above = field.metadata["above"]
        if above is not None and value <= above:
            raise UsageError(f"{named(field.name)} must be more than {above:g}, not {value:g}")
        if low is not None and value < low:
            raise UsageError(f"{named(field.name)} must be at least {low:g}, not {value}")
        if high is not None and value > high:
            raise UsageError(f"{named(field.name)} must be at most {high:g}, not {value}")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise UsageError(f"{named(field.name)} must be one of {', '.join(choices)}, not {value!r}")
    return value


def _parsed(name: str, hint: Any, text: str) -> Any:
    """A flag's text as the field's own type. A list is separated by commas, or is a JSON list."""
    if get_origin(hint) is tuple:
        return _parsed_list(name, get_args(hint)[0], text)
    kinds = get_args(hint) or (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    if bool in kinds:
        if text.lower() in ("true", "yes", "1", "false", "no", "0"):
            return text.lower() in ("true", "yes", "1")
        raise UsageError(f"{named(name)} must be true or false, not {text!r}")
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    if str in kinds:
        return text
    raise UsageError(f"{named(name)} must be a {'whole ' * (float not in kinds)}number, not {text!r}")


def _parsed_list(name: str, kind: type, text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{named(name)} is no JSON list ({error}): {text!r}") from error
        return list(found)
    if "|" in text:
        outdated(f"{name} is separated by commas now; | works for one more release")
    parts = [part.strip() for part in text.split("|" if "|" in text else ",")] if text.strip() else []
    if kind is str:
        return parts
    try:
        return [kind(part) for part in parts]
    except ValueError as error:
        raise UsageError(f"{named(name)} must be numbers separated by commas, not {text!r}") from error
