"""Settings for trainings of a second."""

from __future__ import annotations

from typing import Any

from unlikeness.protect.rid.network import NetworkSettings

SMALL = NetworkSettings(fine=4, middle=6, coarse=8)
FEW: dict[str, Any] = {
    "steps": 5,
    "batch_size": 2,
    "renders": 3,
    "leaves": 3,
    "warmup": 1,
    "learning_rate": 0.01,
}
