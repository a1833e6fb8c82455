"""The table of personalizations. A method is a class in a file of its own and one `register` line.

A package outside this one adds its methods through the entry-point group "unlikeness.personalize":

    [project.entry-points."unlikeness.personalize"]
    mymethod = "mypackage.mymodule:MyMethod"
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.settings import build

if TYPE_CHECKING:
    from unlikeness.diffusion.latents import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["GROUP", "Personalizer", "create", "method", "names", "register"]

GROUP = "unlikeness.personalize"

_homes: dict[str, str] = {}


class Personalizer(Protocol):
    """A method: made from its settings, with one verb."""

    @property
    def settings(self) -> PersonalizeSettings: ...

    def personalize(
        self,
        model: TextToImage,
        subject: Subject,
        *,
        prior: Posterior | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> TextToImage:
        """A personalized copy; the model passed in is never changed."""


def register(name: str, home: str) -> None:
    """Enter the class at `home`, written "package.module:Class"; it is imported at first use."""
    if name in _homes:
        raise UsageError(f"personalization {name} is registered twice: {_homes[name]} and {home}")
    _homes[name] = home


def names() -> list[str]:
    """All methods, our own in their order and then those of other packages."""
    return [*_homes, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in _homes)]


def method(name: str) -> Any:
    """The class of this name. UsageError if there is none; UnlikenessError if it cannot be imported."""
    if name in _homes:
        module, _, attribute = _homes[name].partition(":")
        found = getattr(import_module(module), attribute, None)
    else:
        outside = {entry.name: entry for entry in entry_points(group=GROUP)}
        if name not in outside:
            near = difflib.get_close_matches(name, names(), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"{name} is no personalization{hint}; valid are: {', '.join(names())}")
        try:
            found = outside[name].load()
        except (ImportError, AttributeError) as error:
            raise UnlikenessError(
                f"personalization {name} of another package cannot be imported ({error}); update or remove it"
            ) from error
    kind = getattr(found, "settings_type", None)
    fits = isinstance(kind, type) and issubclass(kind, PersonalizeSettings)
    if not (fits and callable(getattr(found, "personalize", None))):
        raise UnlikenessError(f"personalization {name} has no settings_type and personalize(model, subject)")
    return found


def create(name: str, settings: PersonalizeSettings | Mapping[str, object] | None = None) -> Personalizer:
    """A method, ready to `personalize`, from its settings or values for them (numbers or text of flags)."""
    found = method(name)
    if settings is None or isinstance(settings, Mapping):
        settings = build(found.settings_type, settings or {})
    if not isinstance(settings, found.settings_type):
        raise UsageError(
            f"personalization {name} needs {found.settings_type.__name__}, not {type(settings).__name__}"
        )
    made: Personalizer = found(settings)
    return made
