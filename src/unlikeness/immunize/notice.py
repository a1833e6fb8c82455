"""Notice, ours: PersGuard's protective outputs along simulated attacks, for the protected subject alone.

`divert` with the settings under which its fine-tunes end in a notice and other subjects' do not: longer
attacks, of which every third one, after a first part of the run, is on a bystander and is to succeed
(`bystanders`); a step of the model after every protective gradient; guided answers, with those without words
held (`preserve_empty`), which guidance subtracts; and the highest noise, where pictures begin, counted most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unlikeness.immunize.divert import Divert
from unlikeness.immunize.divert_settings import DivertSettings
from unlikeness.settings import setting, with_default

__all__ = ["Notice", "NoticeSettings"]

_FOUND = "ours, found on the toybox with tuning subjects"


@dataclass(frozen=True, kw_only=True)
class NoticeSettings(DivertSettings):
    """Those of `divert`; another class is what it leads to unless told otherwise."""

    outer_steps: int = setting(
        800, "Steps of the model that is released.", unit="steps", source=_FOUND, at_least=1
    )
    inner_steps: int = setting(
        1, "Protective gradients of a simulated attack for each of them; 0: none.", unit="gradients",
        source=_FOUND, at_least=0,
    )  # fmt: skip
    stride: int = setting(
        5, "Steps of the attack that each of inner_steps stands for.", unit="steps", source=_FOUND, at_least=1
    )
    learning_rate: float = setting(
        2e-5, "AdamW's step size.", source="ours: 4 times that of the attacker who is feared", at_least=0.0
    )
    depth: int = setting(
        100, "Steps for which an attack is followed, a multiple of inner_steps times stride; 0: that.",
        unit="steps", source=_FOUND, at_least=0,
    )  # fmt: skip
    text_encoder: float = setting(
        0.0, "Share of the simulated attackers who train the text encoder too.", source=_FOUND,
        at_least=0.0, at_most=1.0,
    )  # fmt: skip
    weight_cap: float = setting(100.0, "Largest w(t); 0: w = 1.", source=_FOUND, at_least=0.0)
    guidance: float = setting(
        3.0, "Guidance of the pictures that are led elsewhere; 0: the plain answers are.", source=_FOUND,
        at_least=0.0,
    )  # fmt: skip
    preserve_cap: float = setting(
        100.0, "Largest w(t), the least being 1, of what is preserved at the released weights; 0: w = 1.",
        source=_FOUND, at_least=0.0,
    )  # fmt: skip
    preserve_batch_size: int = setting(
        4, "Pictures in what is preserved.", unit="pictures", source="ours: 4 times batch_size", at_least=1
    )
    preserve_empty: float = setting(
        0.3, "Share of these that are asked about without words instead, which guidance subtracts.",
        source=_FOUND, at_least=0.0, at_most=1.0,
    )  # fmt: skip
    bystanders: int = setting(
        3, "Every so many-th simulated attack is on somebody whom nobody protects, and is to succeed; 0: "
        "none.", unit="attacks", source=_FOUND, at_least=0,
    )  # fmt: skip
    bystanders_from: float = setting(
        0.3, "Share of the simulated attacks that come first, without bystanders.", source=_FOUND,
        at_least=0.0, at_most=1.0,
    )  # fmt: skip
    bystanders_placed: float = setting(
        0.8, "Share of their rows that name a place.", source=_FOUND, at_least=0.0, at_most=1.0
    )
    mark_weight: float = with_default(DivertSettings, "mark_weight", 10.0)
    avoidance: float = with_default(DivertSettings, "avoidance", 1.0)
    behaviour: str = setting(
        "target",
        "The notice: target, pattern or erasure; several, separated by commas, go to the subjects in turn.",
        source="ours; PersGuard",
    )


class Notice(Divert):
    """The diversion to a notice."""

    settings_type: ClassVar[type[DivertSettings]] = NoticeSettings

    def __init__(self, settings: DivertSettings | None = None) -> None:
        super().__init__(settings or NoticeSettings())
