"""What `protect --method rid` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.protect.settings import ProtectSettings
from unlikeness.settings import setting

__all__ = ["WAYS", "RidSettings"]

WAYS = ("resize", "tiles")


@dataclass(frozen=True, kw_only=True)
class RidSettings(ProtectSettings):
    """Which network. Its strength follows the budget: one set of weights serves 2 to 16 /255."""

    weights: str = setting(
        "rid-toybox",
        "A shipped protector's name, a file of `unlikeness train-protector` or `unlikeness export`, or an "
        "official checkpoint (.bin, .safetensors).",
        source="ours: trained against the toybox",
    )
    way: str = setting(
        "resize",
        "How an official checkpoint, which knows one size, meets other pictures.",
        source="ours",
        choices=WAYS,
    )
