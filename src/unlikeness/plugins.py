"""Names of interchangeable methods: ours by `register`, other packages' by an entry point.

Nothing is imported until it is asked for by name. See `protect.registry` and `personalize.registry`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.settings import Checked, build

__all__ = ["Methods", "settings_of"]

S = TypeVar("S", bound=Checked)


class Methods:
    """The methods of one kind.

    Args:
        kind: what one of them is called in messages.
        group: the entry-point group of other packages' methods. Ours win over theirs of the same name.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self.homes: dict[str, str] = {}
        self._outside: dict[str, EntryPoint] | None = None

    def register(self, name: str, home: str) -> None:
        """Enter the class at `home`, written "package.module:Class"; it is imported at its first use.

        UsageError for a name that is taken or is no lower-case identifier, or a home of another form.
        """
        if name in self.homes:
            raise UsageError(f"{self.kind} {name} is registered twice: {self.homes[name]} and {home}")
        if not name.isidentifier() or name != name.lower():
            raise UsageError(f"{self.kind} {name!r} must be named by a lower-case identifier")
        module, colon, attribute = home.partition(":")
        if not (colon and module.replace(".", "_").isidentifier() and attribute.isidentifier()):
            raise UsageError(f"{self.kind} {name} needs a home like package.module:Class, not {home!r}")
        self.homes[name] = home

    def names(self) -> list[str]:
        """All methods: our own in their order, then those of other packages."""
        return [*self.homes, *sorted(set(self.outside()) - set(self.homes))]

    def outside(self) -> dict[str, EntryPoint]:
        """Other packages' methods, looked up once."""
        if self._outside is None:
            self._outside = {entry.name: entry for entry in entry_points(group=self.group)}
        return self._outside

    def load(self, name: str) -> Any:
        """What is registered under this name.

        UsageError if there is nothing (the message lists all names); UnlikenessError if another package's
        method cannot be imported.
        """
        if name in self.homes:
            module, _, attribute = self.homes[name].partition(":")
            return getattr(import_module(module), attribute)
        entry = self.outside().get(name)
        if entry is None:
            near = difflib.get_close_matches(name, self.names(), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"{name} is no {self.kind}{hint}; valid are: {', '.join(self.names())}")
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise UnlikenessError(
                f"{self.kind} {name} of another package cannot be imported ({entry.value}: {error}); "
                "update or remove that package"
            ) from error


def settings_of(what: str, kind: type[S], given: S | Mapping[str, object] | None) -> S:
    """`given` as settings of this kind: an object of it, or values by name (numbers or the text of flags)."""
    if given is None or isinstance(given, Mapping):
        return build(kind, given or {})
    if not isinstance(given, kind):
        raise UsageError(f"{what} needs {kind.__name__}, not {type(given).__name__}")
    return given
