"""The table of protections. A method is a class in a file of its own and one `register` line.

A package outside this one adds its methods through the entry-point group "unlikeness.protect":

    [project.entry-points."unlikeness.protect"]
    mymethod = "mypackage.mymodule:MyMethod"
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.settings import ProtectSettings
from unlikeness.settings import build

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.protect.base import Perturber

__all__ = ["GROUP", "Method", "create", "method", "names", "register"]

GROUP = "unlikeness.protect"

_homes: dict[str, str] = {}


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


def register(name: str, home: str) -> None:
    """Enter the class at `home`, written "package.module:Class", under `name`; it is imported at first use.

    Raises:
        UsageError: a name that is taken or is no lower-case identifier, or a home of another form.
    """
    if name in _homes:
        raise UsageError(f"protection {name} is registered twice: {_homes[name]} and {home}")
    if not name.isidentifier() or name != name.lower():
        raise UsageError(f"protection {name!r} must be named by a lower-case identifier")
    module, colon, attribute = home.partition(":")
    if not (colon and module.replace(".", "_").isidentifier() and attribute.isidentifier()):
        raise UsageError(f"protection {name} needs a home like package.module:Class, not {home!r}")
    _homes[name] = home


def names() -> list[str]:
    """All methods, our own in their order and then those of other packages."""
    return [*_homes, *sorted(set(_outside()) - set(_homes))]


def method(name: str) -> Method:
    """The method of this name. Ours win over an outside package's of the same name.

    Raises:
        UsageError: no such method (the message lists them all).
        UnlikenessError: a method that cannot be imported or is not of the right form.
    """
    if name in _homes:
        module, _, attribute = _homes[name].partition(":")
        return _validated(name, getattr(import_module(module), attribute, None))
    outside = _outside()
    if name in outside:
        try:
            loaded = outside[name].load()
        except (ImportError, AttributeError) as error:
            raise UnlikenessError(
                f"protection {name} of another package cannot be imported ({outside[name].value}: {error}); "
                f"update or remove that package"
            ) from error
        return _validated(name, loaded)
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"{name} is no protection{hint}; valid are: {', '.join(names())}")


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
    if settings is None or isinstance(settings, Mapping):
        settings = build(found.settings_type, settings or {})
    if not isinstance(settings, found.settings_type):
        raise UsageError(
            f"protection {name} needs {found.settings_type.__name__}, not {type(settings).__name__}"
        )
    if model is None and found.needs_model:
        raise UsageError(f"protection {name} needs a model to protect against")
    return found.protection(model, settings)


@cache
def _outside() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _validated(name: str, loaded: Any) -> Method:
    """`loaded` as a `Method`, if it is what it should be."""
    settings_type = getattr(loaded, "settings_type", None)
    if not (isinstance(settings_type, type) and issubclass(settings_type, ProtectSettings)):
        raise UnlikenessError(f"protection {name} has no settings_type that derives from ProtectSettings")
    if not callable(getattr(loaded, "perturb", None)):
        raise UnlikenessError(f"protection {name} has no method perturb(images, seeds, on_step)")
    summary = (loaded.__doc__ or "").strip().split("\n")[0]
    return Method(name, loaded, settings_type, bool(getattr(loaded, "needs_model", True)), summary)
