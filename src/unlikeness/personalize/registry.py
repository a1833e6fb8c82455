"""The table of personalizations. A method is a class in a file of its own and one `register` line.

A package outside this one adds its methods through the entry-point group "unlikeness.personalize":

    [project.entry-points."unlikeness.personalize"]
    mymethod = "mypackage.mymodule:MyMethod"
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unlikeness.errors import UnlikenessError
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.plugins import Methods, settings_of

if TYPE_CHECKING:
    from unlikeness.diffusion.latents import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["METHODS", "Personalizer", "create", "method", "settings_type"]

METHODS = Methods("personalization", "unlikeness.personalize")


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


def method(name: str) -> Any:
    """The class of this name. UsageError if there is none; UnlikenessError if it is not of the right form."""
    found = METHODS.load(name)
    kind = getattr(found, "settings_type", None)
    fits = isinstance(kind, type) and issubclass(kind, PersonalizeSettings)
    if not (fits and callable(getattr(found, "personalize", None))):
        raise UnlikenessError(f"personalization {name} has no settings_type and personalize(model, subject)")
    return found


def settings_type(name: str) -> type[PersonalizeSettings]:
    """The class of a method's settings, of our own methods without importing torch. Raises as `method`."""
    found = METHODS.settings(name)
    if found is not None and issubclass(found, PersonalizeSettings):
        return found
    kind: type[PersonalizeSettings] = method(name).settings_type
    return kind


def create(name: str, settings: PersonalizeSettings | Mapping[str, object] | None = None) -> Personalizer:
    """A method, ready to `personalize`, from its settings or values for them (numbers or text of flags)."""
    found = method(name)
    made: Personalizer = found(settings_of(f"personalization {name}", found.settings_type, settings))
    return made
