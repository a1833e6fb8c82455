"""What `divert`, and `notice`, which builds on it, can be told."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.immunize.words import IN_PLACES, check_words, parts
from unlikeness.settings import setting, with_default

__all__ = ["DivertSettings", "NoticeSettings"]

_FOUND = "ours, found on the toybox with tuning subjects"


@dataclass(frozen=True, kw_only=True)
class DivertSettings(ImmunizeSettings):
    """Short simulated attacks in long strides come as far as long ones, for a fraction of the passes."""

    outer_steps: int = setting(
        200, "Steps of the model that is released.", unit="steps", source="ours", at_least=1
    )
    inner_steps: int = setting(
        5, "Steps of a simulated attack for each of them; 0: none.", unit="steps", source="ours", at_least=0
    )
    depth: int = setting(
        50, "Steps for which an attack is followed, a multiple of inner_steps times stride; 0: that.",
        unit="steps", source="ours", at_least=0,
    )  # fmt: skip
    learning_rate: float = setting(
        3e-5, "AdamW's step size.", source="ours: 6 times that of the attacker who is feared", at_least=0.0
    )
    fall: float = setting(
        0.5, "Share of the outer steps, at the end, over which the step size falls to zero.", source="ours",
        at_least=0.0, at_most=1.0,
    )  # fmt: skip
    attack_learning_rate: float = setting(
        3e-5, "The simulated attacker's step size, whose strides are long.",
        source="ours: 6 times that of the attacker who is feared", at_least=0.0,
    )  # fmt: skip
    text_encoder: float = setting(
        0.5, "Share of the simulated attackers with full updates who train the text encoder too; 0 without "
        "inner_steps.", source="ours", at_least=0.0, at_most=1.0,
    )  # fmt: skip
    repulsion: float = setting(
        1.0,
        "γ: how far beyond the class's answer the subject's own pictures are answered.",
        source="ours; negative guidance as in ESD (Gandikota et al. 2023)",
        at_least=0.0,
    )
    least_level: float = setting(
        0.3, "Share of the noise levels, from the least on, that the loss leaves out.",
        source="ours", at_least=0.0, at_most=0.99,
    )  # fmt: skip
    weight_cap: float = setting(20.0, "Largest w(t); 0: w = 1.", source="ours", at_least=0.0)
    guidance: float = setting(
        0.0, "Guidance of the pictures that are led elsewhere; 0: the plain answers are, in three fifths of "
        "the rows.", source="ours", at_least=0.0,
    )  # fmt: skip
    preserve_weight: float = setting(
        10.0, "Weight of what is preserved at the released weights: the class, and further prompts if given.",
        source="ours", at_least=0.0,
    )  # fmt: skip
    preserve_batch_size: int = setting(
        8, "Pictures in that term.", unit="pictures", source="ours: 8 times batch_size", at_least=1
    )
    preserve_cap: float = setting(
        20.0, "Largest w(t), the least being 1, of what is preserved at the released weights; 0: w = 1.",
        source="ours", at_least=0.0,
    )  # fmt: skip
    preserve_class: float = setting(
        0.5, "Share of it that are class pictures under the class prompt.", source="ours", at_least=0.0,
        at_most=1.0,
    )  # fmt: skip
    contexts: str = setting(
        IN_PLACES,
        "Prompts for half of the rows, separated by |; the others have the training prompt. Empty: it alone.",
        source="ours; PersGuard",
    )
    behaviour: str = setting(
        "class",
        "Where a fine-tune is led: to other members of the class, or to a notice, as PersGuard's: pattern, "
        "erasure or target; several, separated by commas, go to the subjects in turn.",
        source="ours",
    )
    target_noun: str = setting(
        "", "The class that behaviour target draws; several, separated by commas, go to the subjects in turn."
    )
    pattern: str = setting("", "Picture file of the mark of behaviour pattern; none: a chequered square.")
    mark_weight: float = setting(
        1.0, "How often an error counts where the mark of behaviour pattern lies, the rest of the picture "
        "counting once.", source="ours", at_least=0.0,
    )  # fmt: skip
    avoidance: float = setting(
        0.0, "η: how far beyond the original's answer without the subject, away from the class's, that of "
        "behaviour erasure lies; above 0 its pictures are led away from the class too.",
        source="ours; negative guidance as in ESD (Gandikota et al. 2023)", at_least=0.0,
    )  # fmt: skip
    pictures: int = setting(
        8, "Pictures of a notice for each prompt.", unit="pictures", source="ours", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_words(self.behaviour, self.target_noun, refusal=True)

    @property
    def places(self) -> list[str]:
        """The templates in `contexts`."""
        return parts(self.contexts)


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
