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
        self._settings: dict[str, str] = {}
        self._needs_model: dict[str, bool] = {}
        self._outside: dict[str, EntryPoint] | None = None

    def register(
        self, name: str, home: str, *, settings: str | None = None, needs_model: bool | None = None
    ) -> None:
        """Enter the class at `home`, written "package.module:Class"; it is imported at its first use.

        Args:
            settings: where its `settings_type` is, written likewise, in a module that loads no torch, so that
                wrong settings are told before torch is loaded. None: the class itself is asked.
            needs_model: what the class says by that name, for the same reason.

        UsageError for a name that is taken or is no lower-case identifier, or a home of another form.
        """
        if name in self.homes:
            raise UsageError(f"{self.kind} {name} is registered twice: {self.homes[name]} and {home}")
        if not name.isidentifier() or name != name.lower():
            raise UsageError(f"{self.kind} {name!r} must be named by a lower-case identifier")
        for place in (home, settings):
            module, colon, attribute = (place or home).partition(":")
            if not (colon and module.replace(".", "_").isidentifier() and attribute.isidentifier()):
                raise UsageError(f"{self.kind} {name} needs a home like package.module:Class, not {place!r}")
        self.homes[name] = home
        if settings is not None:
            self._settings[name] = settings
        if needs_model is not None:
            self._needs_model[name] = needs_model

    def names(self) -> list[str]:
        """All methods: our own in their order, then those of other packages."""
        return [*self.homes, *sorted(set(self.outside()) - set(self.homes))]

    def settings(self, name: str) -> type[Checked] | None:
        """The class of a method's settings where it is registered by itself: the method is not imported.

        None for another package's method, and for one that is registered without it. UsageError as for
        `load` if there is no method of this name.
        """
        if name not in self.homes and name not in self.outside():
            raise self._unknown(name)
        if name not in self._settings:
            return None
        found: type[Checked] = _at(self._settings[name])
        return found

    def needs_model(self, name: str) -> bool | None:
        """What was registered; None where that is not known before the method is imported."""
        return self._needs_model.get(name)

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
            return _at(self.homes[name])
        entry = self.outside().get(name)
        if entry is None:
            raise self._unknown(name)
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise UnlikenessError(
                f"{self.kind} {name} of another package cannot be imported ({entry.value}: {error}); "
                "update or remove that package"
            ) from error

    def _unknown(self, name: str) -> UsageError:
        near = difflib.get_close_matches(name, self.names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return UsageError(f"{name} is no {self.kind}{hint}; valid are: {', '.join(self.names())}")


def _at(home: str) -> Any:
    """What "package.module:Name" names."""
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute)


def settings_of(what: str, kind: type[S], given: S | Mapping[str, object] | None) -> S:
    """`given` as settings of this kind: an object of it, or values by name (numbers or the text of flags)."""
    if given is None or isinstance(given, Mapping):
        return build(kind, given or {})
    if not isinstance(given, kind):
        raise UsageError(f"{what} needs {kind.__name__}, not {type(given).__name__}")
    return given
