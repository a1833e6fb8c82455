"""The table of purifications. A method is a class in a file of its own and one `register` line.

A package outside this one adds its methods through the entry-point group "unlikeness.purify":

    [project.entry-points."unlikeness.purify"]
    mymethod = "mypackage.mymodule:MyMethod"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.plugins import Methods, settings_of
from unlikeness.purify.settings import PurifySettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.purify.base import Purifier

__all__ = ["METHODS", "create", "method"]

METHODS = Methods("purification", "unlikeness.purify")


def method(name: str) -> Any:
    """The class of this name. UsageError if there is none; UnlikenessError if it is not of the right form."""
    found = METHODS.load(name)
    kind = getattr(found, "settings_type", None)
    fits = isinstance(kind, type) and issubclass(kind, PurifySettings)
    if not (fits and callable(getattr(found, "purify", None))):
        raise UnlikenessError(f"purification {name} has no settings_type and purify(images, seeds)")
    return found


def create(
    name: str,
    model: TextToImage | None = None,
    settings: PurifySettings | Mapping[str, object] | None = None,
) -> Purifier:
    """A purification, ready to `purify`.

    Args:
        name: see `names`.
        model: the attacker's model; may be None for a method that needs none.
        settings: the method's settings object, or values for it by name (numbers or the text of flags).

    Raises:
        UsageError: an unknown method or setting, a wrong value, a missing model.
    """
    found = method(name)
    if model is None and getattr(found, "needs_model", False):
        raise UsageError(f"purification {name} needs a model whose autoencoder it can use; give one")
    made: Purifier = found(model, settings_of(f"purification {name}", found.settings_type, settings))
    return made
