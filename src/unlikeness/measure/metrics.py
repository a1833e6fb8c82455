"""Metrics of other packages: a number for each picture that an attacked model draws.

Our own are in `similarity` (s), `spoiled` and `visibility`. Another package adds one through the entry point
`unlikeness.measure`; `unlikeness bench` computes it for every cell, beside that of the unprotected control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from unlikeness.plugins import Methods
from unlikeness.settings import Checked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METRICS", "Drawn", "Metric", "MetricSettings"]


@dataclass(frozen=True, kw_only=True)
class MetricSettings(Checked):
    """Base class of a metric's settings; the defaults are used."""


@dataclass(frozen=True)
class Drawn:
    """What an attacked model drew, and what it should have drawn.

    images: [B, 3, H, W] in [0, 1]. subject: [S, 3, H, W], pictures of it that no attacker had. prompt: of the
    training, with the identifier.
    """

    images: Tensor
    subject: Tensor
    class_noun: str
    prompt: str


class Metric(Protocol):
    """A metric; its class's docstring says in the first line what a high value means."""

    @property
    def settings(self) -> MetricSettings: ...

    def measure(self, drawn: Drawn) -> Tensor:
        """[B]: the value of each picture."""


METRICS: Methods[MetricSettings, Metric] = Methods(
    "metric", "unlikeness.measure", MetricSettings, ("measure",)
)
