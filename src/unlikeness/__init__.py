"""unlikeness: keep a likeness from being copied by text-to-image models.

Importing the package is cheap: everything below is looked up at its first use (PEP 562), so that torch is
not loaded before it is needed.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
__version__ = "0.1.0"

# name -> module that defines it; None: the name is itself a subpackage or module.
_LAZY: dict[str, str | None] = {
    "PictureError": "unlikeness.errors",
    "UnlikenessError": "unlikeness.errors",
    "UsageError": "unlikeness.errors",
    "TextToImage": "unlikeness.diffusion.model",
    "Subject": "unlikeness.subjects",
    "diffusion": None,
    "errors": None,
    "immunize": None,
    "measure": None,
    "personalize": None,
    "pictures": None,
    "progress": None,
    "protect": None,
    "purify": None,
    "subjects": None,
    "toybox": None,
    "training": None,
    "verify": None,
}

if TYPE_CHECKING:  # as `typing` has it, which is not imported: an interrupt may come this early
    from typing import Any

    from unlikeness.diffusion.model import TextToImage as TextToImage
    from unlikeness.errors import PictureError, UnlikenessError, UsageError

__all__ = ["PictureError", "UnlikenessError", "UsageError", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _LAZY[name]
    value: Any = import_module(f"{__name__}.{name}") if home is None else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
