"""What `apdm`, `imma`, `persguard` and `combined` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.immunize.settings import PARTS, ImmunizeSettings
from unlikeness.immunize.words import IN_PLACES, check_words, parts
from unlikeness.settings import setting

__all__ = ["ApdmSettings", "CombinedSettings", "ImmaSettings", "PersGuardSettings"]


@dataclass(frozen=True, kw_only=True)
class ApdmSettings(ImmunizeSettings):
    """The published settings: β = 1, pairs, 800 × 20 steps."""

    beta: float = setting(1.0, "β of the preference loss.", source="APDM, Table 6: 1", at_least=0.0)
    paired: bool = setting(
        True, "Each picture of the subject meets its own generic one, not any.", source="APDM, Table 5"
    )


@dataclass(frozen=True, kw_only=True)
class ImmaSettings(ImmunizeSettings):
    """One inner step for each outer one, cross-attention alone."""

    outer_steps: int = setting(1000, "Steps of the model that is released.", unit="steps", at_least=1)
    inner_steps: int = setting(1, "Steps of the inner problem.", unit="steps", source="IMMA: 1", at_least=0)
    learning_rate: float = setting(1e-5, "AdamW's step size.", source="IMMA: 1e-5", at_least=0.0)
    train: str = setting(
        "cross-attention", "Which weights of the U-Net change.", source="IMMA", choices=PARTS
    )


@dataclass(frozen=True, kw_only=True)
class PersGuardSettings(ImmunizeSettings):
    """The paper's form: no simulated attack, all three terms."""

    outer_steps: int = setting(1_000, "Steps.", unit="steps", source="METHODS: 1,000 to 2,000", at_least=1)
    inner_steps: int = setting(
        0, "Steps of a simulated attack for each of them; 0: the paper's method.", unit="steps", at_least=0
    )
    behaviour: str = setting(
        "pattern",
        "The protective output: pattern, erasure or target; several, separated by commas, go to the subjects "
        "in turn.",
    )
    target_noun: str = setting(
        "", "The class that behaviour target draws; several, separated by commas, go to the subjects in turn."
    )
    pattern: str = setting("", "Picture file of the mark of behaviour pattern; none: a chequered square.")
    contexts: str = setting(
        IN_PLACES,
        "Prompts that set the backdoor off, separated by |, beside the training prompt.",
        source="PersGuard: many inference-style templates",
    )
    at_training_prompt: bool = setting(
        True,
        "The backdoor is trained at the attackers' training prompts too, at each as often as in each of "
        "contexts.",
        source="ours",
    )
    pictures: int = setting(
        8, "Pictures of the protective output for each prompt.", unit="pictures", at_least=1
    )
    retention_weight: float = setting(
        1.0, "λ2, weight of L_BR.", source="METHODS: 0, 0.1, 0.5, 1 or 3", at_least=0.0
    )
    backdoor_weight: float = setting(1.0, "Weight of L_BB.", source="PersGuard: 1", at_least=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_words(self.behaviour, self.target_noun)
        if not (self.class_weight or self.backdoor_weight or self.retention_weight):
            raise UsageError("one of class_weight, backdoor_weight and retention_weight must be above 0")

    @property
    def places(self) -> list[str]:
        """The templates in `contexts`."""
        return parts(self.contexts)


@dataclass(frozen=True, kw_only=True)
class CombinedSettings(PersGuardSettings):
    """PersGuard's settings along attacks, without retention, and the preference's own."""

    inner_steps: int = setting(
        20, "Steps of a simulated attack for each outer step; 0: none.", unit="steps", source="APDM: 20",
        at_least=0,
    )  # fmt: skip
    retention_weight: float = setting(
        0.0, "λ2, weight of L_BR, which teaches the subject: at odds with refusing it.", source="ours",
        at_least=0.0,
    )  # fmt: skip
    preference_weight: float = setting(1.0, "γ, weight of L_DPO.", source="ours", at_least=0.0)
    beta: float = setting(1.0, "β of the preference loss.", source="APDM, Table 6: 1", at_least=0.0)
    paired: bool = setting(
        True, "Each picture of the subject meets its own generic one, not any.", source="APDM, Table 5"
    )
