"""What the settings of all protections have in common. Each method's own stand in its file."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.settings import Checked, setting

__all__ = ["PgdSettings", "ProtectSettings"]


@dataclass(frozen=True, kw_only=True)
class ProtectSettings(Checked):
    """What every protection has."""

    budget: float = setting(
        8.0,
        "Largest change of a colour value.",
        unit="n/255 of the range [0, 1]",
        source="ours: published values run from 6.4 to 16, and methods are compared at one value",
        above=0.0,
        at_most=255.0,
    )


@dataclass(frozen=True, kw_only=True)
class PgdSettings(ProtectSettings):
    """Projected gradient steps of constant size in the L-infinity ball."""

    steps: int = setting(100, "Gradient steps.", unit="steps", source="AdvDM, Mist, SDS: 100", at_least=1)
    step_size: float = setting(
        1.0,
        "Change of every colour value in one step.",
        unit="n/255 of the range [0, 1]",
        source="AdvDM, Mist, SDS: 1",
        above=0.0,
        at_most=255.0,
    )
    random_start: bool = setting(
        True, "Start from a uniform point of the budget's ball rather than from the picture.", source="PGD"
    )
