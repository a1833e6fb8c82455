"""What every immunization can be told: the simulated attacks, and how the model is moved against them."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.settings import Checked, setting

__all__ = ["OF_ATTACKS", "OF_LOW_RANK", "PARTS", "ImmunizeSettings"]

OF_ATTACKS = ("attack_learning_rate", "attack_batch_size", "attack_clip", "stride", "rates", "leak")
"""Settings that are about simulated attacks alone."""

OF_LOW_RANK = ("ranks", "low_rank_rate")
"""About those with low-rank updates alone."""

PARTS = ("all", "attention", "cross-attention")
"""What of the U-Net may be trained: all weights, those of all attention layers, or of cross-attention."""


@dataclass(frozen=True, kw_only=True)
class ImmunizeSettings(Checked):
    """Learning to protect (L2P), Alg. 1 of APDM. Defaults are the published ones, for Stable Diffusion."""

    outer_steps: int = setting(
        800, "Steps of the model that is released (N_protect).", unit="steps", source="APDM: 800", at_least=1
    )
    inner_steps: int = setting(
        20,
        "Steps of a simulated attack for each of them (N_per), with a protective gradient after each; 0 "
        "follows no attack: without L2P.",
        unit="steps",
        source="APDM: 20 (SD 2.1: 10)",
        at_least=0,
    )
    stride: int = setting(
        1,
        "Steps of the attack that each of these stands for: a protective gradient after every so many-th.",
        unit="steps",
        source="ours; APDM: 1",
        at_least=1,
    )
    depth: int = setting(
        0,
        "Steps for which an attack is followed before a new one begins at the released weights, a multiple "
        "of inner_steps times stride; 0: that. Deeper ones move along with the released weights.",
        unit="steps",
        source="ours; APDM: inner_steps",
        at_least=0,
    )
    learning_rate: float = setting(5e-6, "AdamW's step size.", source="APDM", at_least=0.0)
    weight_decay: float = setting(0.01, "AdamW's decoupled weight decay.", source="APDM", at_least=0.0)
    fall: float = setting(
        0.0,
        "Share of the outer steps, at the end, over which the step size falls linearly to zero.",
        source="ours; APDM: none",
        at_least=0.0,
        at_most=1.0,
    )
    clip: float = setting(
        0.0, "Largest norm of the accumulated gradient; 0: unbounded.", source="APDM: unbounded", at_least=0.0
    )
    batch_size: int = setting(
        1,
        "Pictures of each kind in a protective gradient.",
        unit="pictures",
        source="APDM",
        at_least=1,
    )
    attack_learning_rate: float = setting(
        5e-6, "The simulated attacker's step size.", source="APDM", at_least=0.0
    )
    attack_batch_size: int = setting(
        1, "Pictures of the subject in its step, and as many of the class.", source="APDM", at_least=1
    )
    attack_clip: float = setting(
        1.0, "Largest norm of its gradient; 0: unbounded.", source="APDM's attacker", at_least=0.0
    )
    prior_weight: float = setting(1.0, "Weight of its prior preservation.", source="APDM: 1", at_least=0.0)
    class_weight: float = setting(
        1.0,
        "Weight of L_diff(class picture, c_class) in the protective loss.",
        source="APDM, Eq. 15",
        at_least=0.0,
    )
    class_images: int = setting(
        200, "Class pictures that the original model draws.", unit="pictures", source="APDM: 200", at_least=1
    )
    class_steps: int = setting(25, "Solver steps for a class picture.", unit="steps", at_least=1)
    class_seed: int = setting(2_000_000, "Seed of the first class picture; the others follow.", at_least=0)
    preserve_weight: float = setting(
        0.0,
        "Weight of ‖f_θ − f_φ‖² on pictures of many prompts, at the released weights.",
        source="ours; PersGuard's L_PP",
        at_least=0.0,
    )
    preserve_batch_size: int = setting(
        4, "Pictures in that term.", unit="pictures", source="ours", at_least=1
    )
    preserve_cap: float = setting(
        0.0,
        "Largest weight of a noise level in that term, where an error counts as the one in z0 that it means, "
        "but at least once; 0: all levels count alike.",
        source="ours",
        at_least=0.0,
    )
    preserve_class: float = setting(
        0.0,
        "Share of the pictures in that term that are class pictures of a protected subject, under its class "
        "prompt; the others are of the further prompts.",
        source="ours",
        at_least=0.0,
        at_most=1.0,
    )
    preserve_guidance: float = setting(
        0.0,
        "Guidance with which that term asks: what is kept is then the guided answer, from which pictures are "
        "drawn, at two calls a picture; 0: the answer to the prompt alone.",
        source="ours; Ho & Salimans 2022, Eq. 6",
        at_least=0.0,
    )
    preserve_empty: float = setting(
        0.0,
        "Share of the pictures in that term that are asked about without words instead, which guidance "
        "subtracts.",
        source="ours; Ho & Salimans 2022, Eq. 6",
        at_least=0.0,
        at_most=1.0,
    )
    identifiers: str = setting(
        "",
        "Further identifiers, separated by commas, for simulated attacks beside the subject's own.",
        source="ours; PersGuard's gray box",
    )
    templates: str = setting(
        "a photo of {}",
        "Prompts of simulated attacks, separated by |, of which each draws one; {} is the subject's name.",
        source="APDM: a photo of {}",
    )
    rates: str = setting(
        "1", "Factors of attack_learning_rate, separated by commas, of which each attack draws one.",
        source="ours; APDM: 1",
    )  # fmt: skip
    ranks: str = setting(
        "", "Ranks, separated by commas, of which attacks with low-rank updates draw one.", source="ours"
    )
    low_rank: float = setting(
        0.0, "Share of attacks with low-rank updates.", source="ours; APDM: none", at_least=0.0, at_most=1.0
    )
    low_rank_rate: float = setting(
        20.0, "Their learning rate.", unit="times attack_learning_rate", source="1e-4 to 5e-6", at_least=0.0
    )
    text_encoder: float = setting(
        0.0, "Share of the others, with full updates, that train the text encoder too.",
        source="ours; APDM: none", at_least=0.0, at_most=1.0,
    )  # fmt: skip
    bystanders: int = setting(
        0,
        "Every so many-th simulated attack is on somebody whom nobody protects, a class picture under the "
        "subject's name, and is to succeed; 0: none.",
        unit="attacks",
        source="ours",
        at_least=0,
    )
    bystanders_from: float = setting(
        0.0,
        "Share of the simulated attacks that come first, without bystanders: the model learns to refuse, "
        "then whom.",
        source="ours",
        at_least=0.0,
        at_most=1.0,
    )
    bystanders_placed: float = setting(
        0.5,
        "Share of their rows that name a place, where the method leads prompts that do elsewhere too.",
        source="ours",
        at_least=0.0,
        at_most=1.0,
    )
    from_start: bool = setting(
        False,
        "Take the first gradient of an attack on a protected subject before its first step, at the weights "
        "as they are released.",
        source="ours",
    )
    train: str = setting(
        "all", "Which weights of the U-Net change.", source="APDM: all; IMMA: cross-attention", choices=PARTS
    )
    leak: bool = setting(
        False,
        "Add the attacker's own gradient to the sum, as APDM's released code does by not clearing it: for "
        "ablation only.",
        source="APDM's code",
    )
    precision: str = setting(
        "auto",
        "Forward pass in mixed precision; auto: bfloat16 where GPU or CPU compute it, else float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: slower, in less memory."
    )
    seed: int = setting(0, "Seed of everything that is drawn.", at_least=0)

    @property
    def preserve_rows(self) -> int:
        """Rows of the U-Net's batch for that term."""
        return self.preserve_batch_size * (2 if self.preserve_guidance else 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth and (not self.inner_steps or self.depth % self.attack_steps):
            times = f" times stride ({self.stride})" if self.stride > 1 else ""
            raise UsageError(
                f"depth ({self.depth}) must be a multiple of inner_steps ({self.inner_steps}){times}, or 0"
            )
        if self.preserve_empty and self.preserve_guidance:
            raise UsageError(
                f"preserve_empty ({self.preserve_empty:g}) says nothing new where preserve_guidance "
                f"({self.preserve_guidance:g}) asks about all pictures without words; set one of them to 0"
            )
        if self.bystanders and (self.bystanders == 1 or not self.inner_steps):
            raise UsageError(
                f"bystanders ({self.bystanders}) needs inner_steps above 0, and to be 2 or more, or every "
                "attack would be on somebody else; 0: none"
            )
        if self.bystanders_from and not self.bystanders:
            raise UsageError(
                f"bystanders_from ({self.bystanders_from:g}) needs bystanders, which begin there; set both, "
                "or bystanders_from=0"
            )
        if self.from_start and self.inner_steps * self.episode == 1:
            raise UsageError(
                "from_start needs a second gradient in each simulated attack, or nobody would attack; raise "
                "depth or inner_steps, or set from_start=false"
            )
        if self.low_rank and not self.ranks:
            raise UsageError("low_rank needs ranks to draw from, such as 4,32")
        if not self.inner_steps:
            for name, value in (("low_rank", self.low_rank), ("text_encoder", self.text_encoder)):
                if value:
                    raise UsageError(
                        f"{name} ({value:g}), a share of attacks, needs inner_steps above 0; or set {name}=0"
                    )

    @property
    def places(self) -> list[str]:
        """Templates of prompts that name a place, which the method leads elsewhere too; [] if it has none."""
        return []

    @property
    def uses_prompts(self) -> bool:
        """Whether pictures of further prompts are preserved."""
        return bool(self.preserve_weight) and self.preserve_class < 1

    @property
    def attack_steps(self) -> int:
        """Steps of a simulated attack in one outer step."""
        return self.inner_steps * self.stride

    @property
    def episode(self) -> int:
        """Outer steps for which one simulated attack is followed."""
        return self.depth // self.attack_steps if self.depth else 1
