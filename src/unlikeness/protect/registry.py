"""The table of protections. A method is a class in a file of its own and one `register` line.

A package outside this one adds its methods through the entry-point group "unlikeness.protect":

    [project.entry-points."unlikeness.protect"]
    mymethod = "mypackage.mymodule:MyMethod"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.plugins import Methods, settings_of
from unlikeness.protect.settings import ProtectSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.protect.base import Perturber

__all__ = ["METHODS", "Method", "create", "method", "needs_model", "settings_type"]

METHODS = Methods("protection", "unlikeness.protect")


@dataclass(frozen=True)
class Method:
    """A registered protection.

    `protection(model, settings)` is its constructor, `settings_type` the class of its
    settings, `needs_model` whether `model` may be None, `summary` the first line of its docstring.
    """

    name: str
    protection: Callable[..., Perturber]
    settings_type: type[ProtectSettings]
    needs_model: bool
    summary: str


def method(name: str) -> Method:
    """The method of this name. Ours win over an outside package's of the same name.

    Raises:
        UsageError: no such method (the message lists them all).
        UnlikenessError: a method that cannot be imported or is not of the right form.
    """
    return _validated(name, METHODS.load(name))


def settings_type(name: str) -> type[ProtectSettings]:
    """The class of a method's settings, of our own methods without importing torch. Raises as `method`."""
    found = METHODS.settings(name)
    if found is not None and issubclass(found, ProtectSettings):
        return found
    return method(name).settings_type


def needs_model(name: str) -> bool:
    """Whether a method needs a model to protect against. Raises what `method` does."""
    METHODS.settings(name)  # whether there is one
    known = METHODS.needs_model(name)
    return method(name).needs_model if known is None else known


def create(
    name: str,
    model: TextToImage | None = None,
    settings: ProtectSettings | Mapping[str, object] | None = None,
) -> Perturber:
    """A protection, ready to `perturb`.

    Args:
        name: see `names`.
        model: the model to protect against; may be None for a method that needs none.
        settings: the method's settings object, or values for it by name (numbers or the text of flags).

    Raises:
        UsageError: an unknown method or setting, a wrong value, a missing model.
    """
    found = method(name)
    if model is None and found.needs_model:
        raise UsageError(f"protection {name} needs a model to protect against")
    return found.protection(model, settings_of(f"protection {name}", found.settings_type, settings))


def _validated(name: str, loaded: Any) -> Method:
    """`loaded` as a `Method`, if it is what it should be."""
    settings_type = getattr(loaded, "settings_type", None)
    if not (isinstance(settings_type, type) and issubclass(settings_type, ProtectSettings)):
        raise UnlikenessError(f"protection {name} has no settings_type that derives from ProtectSettings")
    if not callable(getattr(loaded, "perturb", None)):
        raise UnlikenessError(f"protection {name} has no method perturb(images, seeds, on_step)")
    summary = (loaded.__doc__ or "").strip().split("\n")[0]
    return Method(name, loaded, settings_type, bool(getattr(loaded, "needs_model", True)), summary)
