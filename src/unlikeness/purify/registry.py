"""The table of purifications, ours and those of other packages (`plugins`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness.plugins import Methods
from unlikeness.purify.settings import PurifySettings

if TYPE_CHECKING:
    from unlikeness.purify.base import Purifier

__all__ = ["METHODS", "create", "method"]

METHODS: Methods[PurifySettings, Purifier] = Methods(
    "purification", "unlikeness.purify", PurifySettings, ("purify",)
)
create = METHODS.create_for
method = METHODS.load
