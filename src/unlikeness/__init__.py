"""unlikeness: keep a likeness from being copied by text-to-image models.

Importing the package is cheap: names are looked up at their first use (PEP 562), so that torch is not loaded
before it is needed.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in `typing`, which is not imported: an interrupt may come this early
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from unlikeness.diffusion.model import TextToImage as TextToImage
    from unlikeness.errors import PictureError, UnlikenessError, UsageError

__version__ = "0.1.0"
__all__ = ["PictureError", "UnlikenessError", "UsageError", "__version__"]


def looked_up(
    package: str, homes: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> Callable[[str], Any]:
    """A `__getattr__` for `package` that imports a name at its first use.

    homes: for each module of the package, the names that it defines. modules: modules that are names
    themselves. Type checkers and readers find the names under `if TYPE_CHECKING`.
    """

    def get(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        for module, names in homes.items():
            if name in names:
                return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get


_HOMES = {
    "errors": ("PictureError", "UnlikenessError", "UsageError"),
    "diffusion.model": ("TextToImage",),
    "subjects": ("Subject",),
}
_MODULES = (
    "diffusion", "errors", "immunize", "measure", "personalize", "pictures", "progress", "protect", "purify",
    "subjects", "toybox", "training", "verify",
)  # fmt: skip

__getattr__ = looked_up(__name__, _HOMES, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *(name for names in _HOMES.values() for name in names)})
