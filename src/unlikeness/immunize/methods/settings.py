"""Settings of each immunization. This file loads no torch, so that wrong settings are
refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unlikeness.immunize.outputs import KINDS, check_kinds
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.settings import setting, with_default

__all__ = [
    "ApdmSettings", "CombinedSettings", "DivertSettings", "ImmaSettings", "NoticeSettings", "OutputSettings",
    "PersGuardSettings",
]  # fmt: skip

_FOUND = "ours, found on the toybox with tuning subjects"


@dataclass(frozen=True, kw_only=True)
class ApdmSettings(ImmunizeSettings):
    """The published settings: β = 1, pairs, 800 × 20 steps."""

    beta: float = setting(1.0, "β of the preference loss.", source="APDM, Table 6: 1", at_least=0.0)
    paired: bool = setting(
        True, "Compare each picture of the subject with its own generic picture, not with any.",
        source="APDM, Table 5",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ImmaSettings(ImmunizeSettings):
    """One inner step for each outer one, cross-attention alone."""

    outer_steps: int = with_default(ImmunizeSettings, "outer_steps", 1000, source="IMMA")
    inner_steps: int = with_default(ImmunizeSettings, "inner_steps", 1, source="IMMA: 1")
    learning_rate: float = with_default(ImmunizeSettings, "learning_rate", 1e-5, source="IMMA: 1e-5")
    train: str = with_default(ImmunizeSettings, "train", "cross-attention", source="IMMA")


@dataclass(frozen=True, kw_only=True)
class OutputSettings(ImmunizeSettings):
    """Protective outputs (`outputs`), shared by the methods that have some."""

    kinds: ClassVar[tuple[str, ...]] = KINDS

    protective_output: tuple[str, ...] = setting(
        ("pattern",),
        "What a fine-tune on the subject draws instead: pattern, erasure or target. Several go to the "
        "subjects in turn.",
        source="PersGuard",
        formerly=("behaviour",),
    )
    target_noun: tuple[str, ...] = setting(
        (), "Class that the protective output target draws. Several go to the subjects in turn."
    )
    pattern: str = setting(
        "", "Picture file of the watermark of the protective output pattern; default: a chequered square."
    )
    contexts: tuple[str, ...] = setting(
        tuple(
            f"a photo of {{}} {place}"
            for place in (
                "in the snow", "on the beach", "in the forest", "in the city", "at night", "on a table",
            )
        ),
        "Prompts with the protective output besides the training prompt; {} is the subject's name.",
        source="PersGuard: many inference-style templates",
    )  # fmt: skip
    output_pictures: int = setting(
        8, "Pictures of the protective output for each prompt.", unit="pictures", source="ours", at_least=1,
        formerly=("pictures",),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "contexts", tuple(filter(None, map(str.strip, self.contexts))))
        check_kinds(self.protective_output, self.target_noun, self.kinds)


@dataclass(frozen=True, kw_only=True)
class PersGuardSettings(OutputSettings):
    """The paper's form: no simulated attack, all three terms."""

    outer_steps: int = with_default(ImmunizeSettings, "outer_steps", 1_000, source="METHODS: 1,000 to 2,000")
    inner_steps: int = with_default(ImmunizeSettings, "inner_steps", 0, source="PersGuard: no attack")
    at_training_prompt: bool = setting(
        True,
        "Train the backdoor at the attackers' training prompts too, each as often as each of contexts.",
        source="ours",
    )
    retention_weight: float = setting(
        1.0, "λ2, weight of L_BR.", source="METHODS: 0, 0.1, 0.5, 1 or 3", at_least=0.0
    )


@dataclass(frozen=True, kw_only=True)
class CombinedSettings(PersGuardSettings):
    """PersGuard's settings along attacks, without retention, and the preference's own."""

    inner_steps: int = with_default(ImmunizeSettings, "inner_steps", 20)
    retention_weight: float = with_default(
        PersGuardSettings, "retention_weight", 0.0, source="ours",
        doc="λ2, weight of L_BR. It teaches the subject, which the preference refuses.",
    )  # fmt: skip
    preference_weight: float = setting(1.0, "γ, weight of L_DPO.", source="ours", at_least=0.0)
    beta: float = with_default(ApdmSettings, "beta", 1.0)
    paired: bool = with_default(ApdmSettings, "paired", True)


@dataclass(frozen=True, kw_only=True)
class DivertSettings(OutputSettings):
    """Short simulated attacks with large steps reach as far as long ones, in a fraction of the passes."""

    kinds: ClassVar[tuple[str, ...]] = ("class", *KINDS)

    outer_steps: int = with_default(ImmunizeSettings, "outer_steps", 200, source="ours")
    inner_steps: int = with_default(ImmunizeSettings, "inner_steps", 5, source="ours")
    attack_depth: int = with_default(ImmunizeSettings, "attack_depth", 50, source="ours")
    learning_rate: float = with_default(
        ImmunizeSettings, "learning_rate", 3e-5, source="ours: 6 times the expected attacker's"
    )
    fall: float = with_default(ImmunizeSettings, "fall", 0.5, source="ours")
    attack_learning_rate: float = with_default(
        ImmunizeSettings, "attack_learning_rate", 3e-5, source="ours: 6 times the expected attacker's"
    )
    attack_text_encoder: float = with_default(ImmunizeSettings, "attack_text_encoder", 0.5, source="ours")
    repulsion: float = setting(
        1.0,
        "γ: how far beyond the class's prediction the target for the subject's own pictures lies.",
        source="ours; negative guidance as in ESD (Gandikota et al. 2023)",
        at_least=0.0,
    )
    least_level: float = setting(
        0.3, "Share of the noise levels, from the lowest on, that the loss leaves out.", source="ours",
        at_least=0.0, at_most=0.99,
    )  # fmt: skip
    weight_cap: float = setting(
        20.0, "Largest weight w(t) of a noise level; 0: w = 1.", source="ours", at_least=0.0
    )
    guidance: float = setting(
        0.0, "Classifier-free guidance scale in the diversion loss; 0: unguided predictions.", source="ours",
        at_least=0.0,
    )  # fmt: skip
    preserve_weight: float = with_default(ImmunizeSettings, "preserve_weight", 10.0)
    preserve_batch_size: int = with_default(
        ImmunizeSettings, "preserve_batch_size", 8, source="ours: 8 times batch_size"
    )
    preserve_cap: float = with_default(ImmunizeSettings, "preserve_cap", 20.0)
    preserve_class: float = with_default(ImmunizeSettings, "preserve_class", 0.5)
    protective_output: tuple[str, ...] = with_default(
        OutputSettings, "protective_output", ("class",), source="ours",
        doc="What a fine-tune on the subject draws instead: class (another member of it), pattern, erasure "
        "or target. Several go to the subjects in turn.",
    )  # fmt: skip
    pattern_weight: float = setting(
        1.0, "Weight of errors under the watermark of the protective output pattern; elsewhere 1.",
        source="ours", at_least=0.0, formerly=("mark_weight",),
    )  # fmt: skip
    avoidance: float = setting(
        0.0,
        "η: how far the target of the protective output erasure lies beyond the original's prediction "
        "without the subject, away from the class's; above 0 its pictures are generated with the class as "
        "negative prompt.",
        source="ours; negative guidance as in ESD (Gandikota et al. 2023)",
        at_least=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class NoticeSettings(DivertSettings):
    """`divert` with a protective output, another class by default, while unprotected subjects stay
    learnable."""

    outer_steps: int = with_default(ImmunizeSettings, "outer_steps", 800, source=_FOUND)
    inner_steps: int = with_default(ImmunizeSettings, "inner_steps", 1, source=_FOUND)
    attack_stride: int = with_default(ImmunizeSettings, "attack_stride", 5, source=_FOUND)
    attack_depth: int = with_default(ImmunizeSettings, "attack_depth", 100, source=_FOUND)
    learning_rate: float = with_default(
        ImmunizeSettings, "learning_rate", 2e-5, source="ours: 4 times the expected attacker's"
    )
    attack_text_encoder: float = with_default(ImmunizeSettings, "attack_text_encoder", 0.0, source=_FOUND)
    weight_cap: float = with_default(DivertSettings, "weight_cap", 100.0, source=_FOUND)
    guidance: float = with_default(DivertSettings, "guidance", 3.0, source=_FOUND)
    preserve_cap: float = with_default(ImmunizeSettings, "preserve_cap", 100.0, source=_FOUND)
    preserve_batch_size: int = with_default(
        ImmunizeSettings, "preserve_batch_size", 4, source="ours: 4 times batch_size"
    )
    preserve_empty: float = with_default(ImmunizeSettings, "preserve_empty", 0.3, source=_FOUND)
    unprotected_every: int = with_default(ImmunizeSettings, "unprotected_every", 3, source=_FOUND)
    unprotected_from: float = with_default(ImmunizeSettings, "unprotected_from", 0.3, source=_FOUND)
    unprotected_placed: float = with_default(ImmunizeSettings, "unprotected_placed", 0.8, source=_FOUND)
    pattern_weight: float = with_default(DivertSettings, "pattern_weight", 10.0)
    avoidance: float = with_default(DivertSettings, "avoidance", 1.0)
    protective_output: tuple[str, ...] = with_default(DivertSettings, "protective_output", ("target",))
