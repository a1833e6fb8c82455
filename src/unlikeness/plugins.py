"""The registry of a command's interchangeable methods: our own, and those of other packages.

A method is a class with `settings_type` and the verbs of its kind, entered by one `register` line. Another
package adds one through an entry point in its pyproject.toml:

    [project.entry-points."unlikeness.protect"]
    mymethod = "mypackage.mymodule:MyMethod"

A method is imported at its first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.settings import Checked, build, named
from unlikeness.words import closest

__all__ = ["Methods"]

S = TypeVar("S", bound=Checked)
T = TypeVar("T")


class Methods(Generic[S, T]):
    """The methods of one command; T is the protocol of a method, S the base class of its settings.

    Args:
        kind: what messages call a method: "protection".
        group: the entry-point group of other packages. Our own methods win over theirs of the same name.
        base: S.
        verbs: names that a method's class must have.
        needs_model: for a class that does not say.
    """

    def __init__(
        self, kind: str, group: str, base: type[S], verbs: Sequence[str], *, needs_model: bool = False
    ) -> None:
        self.kind = kind
        self.group = group
        self.base = base
        self.verbs = verbs
        self.homes: dict[str, str] = {}
        self._settings: dict[str, str] = {}
        self._default = needs_model
        self._needs_model: dict[str, bool] = {}
        self._outside: dict[str, EntryPoint] | None = None

    def register(
        self, name: str, home: str, *, settings: str | None = None, needs_model: bool | None = None
    ) -> None:
        """Enter the class at `home`, written "package.module:Class".

        Args:
            settings: place of its `settings_type`, written likewise, in a module that does not load torch:
                wrong settings are refused before torch is loaded. None: they are read from the class.
            needs_model: the class's attribute of that name, for the same reason.

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

    def outside(self) -> dict[str, EntryPoint]:
        """Methods of other packages, looked up once."""
        if self._outside is None:
            self._outside = {entry.name: entry for entry in entry_points(group=self.group)}
        return self._outside

    def load(self, name: str) -> Any:
        """The class of this name.

        UsageError for an unknown name (the message lists all names); UnlikenessError for another package's
        method that cannot be imported or has not the form of a method.
        """
        if name in self.homes:
            found = _at(self.homes[name])
        else:
            entry = self.outside().get(name)
            if entry is None:
                raise self._unknown(name)
            try:
                found = entry.load()
            except (ImportError, AttributeError) as error:
                raise UnlikenessError(
                    f"{self.kind} {name} of another package cannot be imported ({entry.value}: {error}); "
                    "update or remove that package"
                ) from error
        kind = getattr(found, "settings_type", None)
        if not (isinstance(kind, type) and issubclass(kind, self.base)):
            raise UnlikenessError(
                f"{self.kind} {name} has no settings_type that derives from {self.base.__name__}"
            )
        for verb in self.verbs:
            if not callable(getattr(found, verb, None)):
                raise UnlikenessError(f"{self.kind} {name} has no method {verb}")
        return found

    def settings_type(self, name: str) -> type[S]:
        """The class of a method's settings, without importing the method where it was registered so."""
        if name in self._settings:
            kind: type[S] = _at(self._settings[name])
            return kind
        found: type[S] = self.load(name).settings_type
        return found

    def needs_model(self, name: str) -> bool:
        """Whether a method needs a model, without importing the method where it was registered so."""
        if name in self._needs_model:
            return self._needs_model[name]
        return bool(getattr(self.load(name), "needs_model", self._default))

    def create(self, name: str, settings: S | Mapping[str, object] | None = None) -> T:
        """A method from its settings, or from values for them (numbers or the text of flags)."""
        made: T = self.load(name)(self._built(name, settings))
        return made

    def create_for(self, name: str, model: Any = None, settings: S | Mapping[str, object] | None = None) -> T:
        """A method that computes with `model`, which may be None for a method that needs none.

        UsageError for an unknown method or setting, a wrong value or a missing model.
        """
        if model is None and self.needs_model(name):
            raise UsageError(f"{self.kind} {name} needs a model; give one")
        made: T = self.load(name)(model, self._built(name, settings))
        return made

    def _built(self, name: str, given: S | Mapping[str, object] | None) -> S:
        kind: type[S] = self.load(name).settings_type
        if given is None or isinstance(given, Mapping):
            return build(kind, given or {})
        if not isinstance(given, kind):
            raise UsageError(f"{self.kind} {name} needs {kind.__name__}, not {type(given).__name__}")
        return given

    def _unknown(self, name: str) -> UsageError:
        names = self.names()
        return UsageError(
            f"{named('method')} {name} is no {self.kind}{closest(name, names)}; valid are: {', '.join(names)}"
        )


def _at(home: str) -> Any:
    """The object at "package.module:Name"."""
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute)
