"""The table of protections, ours and those of other packages (`plugins`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness.plugins import Methods
from unlikeness.protect.settings import ProtectSettings

if TYPE_CHECKING:
    from unlikeness.protect.base import Perturber

__all__ = ["METHODS", "create", "method", "needs_model", "settings_type"]

METHODS: Methods[ProtectSettings, Perturber] = Methods(
    "protection", "unlikeness.protect", ProtectSettings, ("perturb",), needs_model=True
)
create = METHODS.create_for
method = METHODS.load
needs_model = METHODS.needs_model
settings_type = METHODS.settings_type
