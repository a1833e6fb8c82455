"""Names of a package that are looked up at their first use (PEP 562), so that importing it stays light.

Wrong paths and settings are told before torch is loaded, and a package's `__init__` stands before all that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["looked_up"]


def looked_up(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """A `__getattr__` for `package`. homes: for each of its modules, the names that it defines.

    The names are imported under `if TYPE_CHECKING` too, where type checkers and readers find them.
    """

    def get(name: str) -> Any:
        for module, names in homes.items():
            if name in names:
                return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
