"""Settings that all immunizations share, in groups: the run, simulated attacks, preservation, unprotected
subjects. Defaults are the published ones, for Stable Diffusion."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.settings import Checked, named, setting

__all__ = ["OF_ATTACKS", "OF_LOW_RANK", "PARTS", "ImmunizeSettings"]

OF_ATTACKS = ("attack_learning_rate", "attack_batch_size", "attack_clip", "attack_stride", "attack_rates")
"""Settings that have no effect without simulated attacks."""

OF_LOW_RANK = ("attack_ranks", "attack_low_rank_rate")
"""Settings that have no effect without low-rank attacks."""

PARTS = ("all", "attention", "cross-attention")
"""Weights of the denoiser that may be trained."""

_LOW_RANK_RATE = 20.0
"""Learning rate of low-rank updates, times that of weights: 1e-4 to 5e-6."""


@dataclass(frozen=True, kw_only=True)
class AttackSettings(Checked):
    """The simulated attackers. APDM simulates one: full fine-tuning under the subject's own prompt."""

    inner_steps: int = setting(
        20,
        "Protective gradients along a simulated attack in each outer step (N_per); 0: no simulated attack.",
        unit="steps",
        source="APDM: 20 (SD 2.1: 10)",
        at_least=0,
    )
    attack_stride: int = setting(
        1, "Attack steps between two protective gradients.", unit="steps", source="ours; APDM: 1", at_least=1,
        formerly=("stride",),
    )  # fmt: skip
    attack_depth: int = setting(
        0,
        "Steps of one attack before a new one starts at the released weights: a multiple of inner_steps "
        "times attack_stride; 0: exactly that. A deeper attack moves along with the released weights.",
        unit="steps",
        source="ours; APDM: inner_steps",
        at_least=0,
        formerly=("depth",),
    )
    attack_from_start: bool = setting(
        False,
        "Take the first gradient of an attack on a protected subject before its first step, at the released "
        "weights.",
        source="ours",
        formerly=("from_start",),
    )
    attack_learning_rate: float = setting(5e-6, "Learning rate of the attacker.", source="APDM", at_least=0.0)
    attack_batch_size: int = setting(
        1, "Pictures of the subject in an attack step, and as many of the class.", unit="pictures",
        source="APDM", at_least=1,
    )  # fmt: skip
    attack_clip: float = setting(
        1.0, "Largest norm of the attacker's gradient; 0: unbounded.", source="APDM's attacker", at_least=0.0
    )
    attack_prior_weight: float = setting(
        1.0, "Weight of the attacker's prior preservation.", source="APDM: 1", at_least=0.0,
        formerly=("prior_weight",),
    )  # fmt: skip
    attack_identifiers: tuple[str, ...] = setting(
        (), "Identifiers of attackers besides the subject's own; each attack draws one.",
        source="ours; PersGuard's gray box", formerly=("identifiers",),
    )  # fmt: skip
    attack_prompts: tuple[str, ...] = setting(
        ("a photo of {}",), "Training prompts of attackers; {} is the subject's name. Each attack draws one.",
        source="APDM: a photo of {}", formerly=("templates",),
    )  # fmt: skip
    attack_rates: tuple[float, ...] = setting(
        (1.0,), "Factors of attack_learning_rate; each attack draws one.", source="ours; APDM: 1", above=0.0,
        formerly=("rates",),
    )  # fmt: skip
    attack_low_rank: float = setting(
        0.0, "Share of attacks with low-rank updates (LoRA).", source="ours; APDM: none", at_least=0.0,
        at_most=1.0, formerly=("low_rank",),
    )  # fmt: skip
    attack_ranks: tuple[int, ...] = setting(
        (), "Ranks of low-rank attacks; each draws one.", source="ours", at_least=1, formerly=("ranks",)
    )
    attack_low_rank_rate: float = setting(
        _LOW_RANK_RATE, "Learning rate of low-rank attacks.", unit="times attack_learning_rate",
        source="1e-4 to 5e-6", at_least=0.0, formerly=("low_rank_rate",),
    )  # fmt: skip
    attack_text_encoder: float = setting(
        0.0, "Share of the other attacks that train the text encoder too.", source="ours; APDM: none",
        at_least=0.0, at_most=1.0, formerly=("text_encoder",),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("attack_identifiers", "attack_prompts"):
            object.__setattr__(self, name, tuple(filter(None, map(str.strip, getattr(self, name)))))
        if not self.attack_prompts or not self.attack_rates:
            raise UsageError(
                f"{named('attack_prompts')} and {named('attack_rates')} must each hold at least one value"
            )
        if self.attack_low_rank and not self.attack_ranks:
            raise UsageError(f"{named('attack_low_rank')} needs {named('attack_ranks')}, such as 4,32")
        if self.attack_depth and (not self.inner_steps or self.attack_depth % self.attack_steps):
            stride = self.attack_stride
            times = f" times {named('attack_stride')} ({stride})" if stride > 1 else ""
            raise UsageError(
                f"{named('attack_depth')} ({self.attack_depth}) must be a multiple of "
                f"{named('inner_steps')} ({self.inner_steps}){times}, or 0"
            )
        if self.attack_from_start and self.inner_steps * self.episode == 1:
            raise UsageError(
                f"{named('attack_from_start')} needs a second gradient in each attack, or no attack would "
                f"take a step; raise {named('attack_depth')} or {named('inner_steps')}, or set it to false"
            )
        for name in ("attack_low_rank", "attack_text_encoder"):
            if getattr(self, name) and not self.inner_steps:
                raise UsageError(
                    f"{named(name)} ({getattr(self, name):g}), a share of attacks, needs "
                    f"{named('inner_steps')} above 0; or set it to 0"
                )

    @property
    def attack_steps(self) -> int:
        """Attack steps in one outer step."""
        return self.inner_steps * self.attack_stride

    @property
    def episode(self) -> int:
        """Outer steps during which one attack goes on."""
        return self.attack_depth // self.attack_steps if self.attack_depth else 1


@dataclass(frozen=True, kw_only=True)
class PreservationSettings(Checked):
    """What the released model must still answer as the original does."""

    preserve_weight: float = setting(
        0.0, "Weight of ‖f_θ − f_φ‖² on pictures of many prompts, at the released weights.",
        source="ours; PersGuard's L_PP", at_least=0.0,
    )  # fmt: skip
    preserve_batch_size: int = setting(
        4, "Pictures in that term.", unit="pictures", source="ours", at_least=1
    )
    preserve_cap: float = setting(
        0.0,
        "Largest weight of a noise level in that term, where an error counts as the error in z0 that it "
        "means, and at least once; 0: all levels count alike.",
        source="ours",
        at_least=0.0,
    )
    preserve_class: float = setting(
        0.0,
        "Share of those pictures that are class pictures of a protected subject, under the class prompt. The "
        "others have prompts of their own.",
        source="ours",
        at_least=0.0,
        at_most=1.0,
    )
    preserve_empty: float = setting(
        0.0,
        "Share of those pictures that get the empty prompt instead, whose prediction guidance subtracts.",
        source="ours; Ho & Salimans 2022, Eq. 6",
        at_least=0.0,
        at_most=1.0,
    )

    @property
    def uses_prompts(self) -> bool:
        """Whether pictures of further prompts are preserved."""
        return bool(self.preserve_weight) and self.preserve_class < 1


@dataclass(frozen=True, kw_only=True)
class UnprotectedSettings(Checked):
    """Simulated attacks on unprotected subjects, which must succeed."""

    unprotected_every: int = setting(
        0,
        "Every n-th simulated attack targets an unprotected subject (a generated class picture) and must "
        "succeed; 0: none.",
        unit="attacks",
        source="ours",
        at_least=0,
        formerly=("bystanders",),
    )
    unprotected_from: float = setting(
        0.0, "Share of the simulated attacks, at the start, without unprotected subjects.", source="ours",
        at_least=0.0, at_most=1.0, formerly=("bystanders_from",),
    )  # fmt: skip
    unprotected_placed: float = setting(
        0.5,
        "Share of an unprotected subject's pictures whose prompt names a place, for methods with contexts.",
        source="ours",
        at_least=0.0,
        at_most=1.0,
        formerly=("bystanders_placed",),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unprotected_from and not self.unprotected_every:
            raise UsageError(
                f"{named('unprotected_from')} ({self.unprotected_from:g}) needs "
                f"{named('unprotected_every')}; set both, or set it to 0"
            )


@dataclass(frozen=True, kw_only=True)
class ImmunizeSettings(AttackSettings, PreservationSettings, UnprotectedSettings):
    """Learning to protect (L2P), Alg. 1 of APDM."""

    outer_steps: int = setting(
        800, "Steps of the released model (N_protect).", unit="steps", source="APDM: 800", at_least=1
    )
    learning_rate: float = setting(5e-6, "Learning rate of AdamW.", source="APDM", at_least=0.0)
    rank: int = setting(
        0,
        "Rank of a low-rank change (LoRA), for large models; 0 changes the weights themselves. It is trained "
        "at 20 times learning_rate, and added to the weights that are saved. Without attack_ranks all "
        "simulated attacks are low-rank too, of the same rank, and the model is held once.",
        source="ours; in use for personalization: 4 to 128", at_least=0, at_most=1024,
    )  # fmt: skip
    weight_decay: float = setting(0.01, "Decoupled weight decay of AdamW.", source="APDM", at_least=0.0)
    fall: float = setting(
        0.0, "Share of the outer steps, at the end, over which the learning rate falls linearly to zero.",
        source="ours; APDM: none", at_least=0.0, at_most=1.0,
    )  # fmt: skip
    clip: float = setting(
        0.0, "Largest norm of the accumulated gradient; 0: unbounded.", source="APDM: unbounded", at_least=0.0
    )
    batch_size: int = setting(
        1, "Pictures of each kind in a protective gradient.", unit="pictures", source="APDM", at_least=1
    )
    class_weight: float = setting(
        1.0, "Weight of the class term in the protective loss.", source="APDM, Eq. 15", at_least=0.0
    )
    class_images: int = setting(
        200, "Class pictures that the original model generates.", unit="pictures", source="APDM: 200",
        at_least=1,
    )  # fmt: skip
    class_steps: int | None = setting(
        None, "Solver steps for a class picture; none takes the model's own (mostly 25).", unit="steps",
        at_least=1,
    )  # fmt: skip
    class_seed: int = setting(2_000_000, "Seed of the first class picture; the others follow.", at_least=0)
    train: str = setting(
        "all", "Weights of the denoiser that change.", source="APDM: all; IMMA: cross-attention",
        choices=PARTS,
    )  # fmt: skip
    precision: str = setting(
        "auto",
        "Forward pass in mixed precision; auto: bfloat16 where GPU or CPU compute it, else float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: slower, in less memory."
    )
    eight_bit_adam: bool = setting(
        False,
        "Hold AdamW's states in 8 bits, a quarter of their memory, of simulated attackers too; needs "
        "bitsandbytes (extra eight-bit).",
        source="Dettmers et al. 2022; --use_8bit_adam in diffusers' scripts",
    )
    seed: int = setting(0, "Seed of everything that is drawn.", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank and self.inner_steps and not self.attack_ranks:
            object.__setattr__(self, "attack_ranks", (self.rank,))
            object.__setattr__(self, "attack_low_rank", 1.0)
        if self.shares_weights:
            object.__setattr__(self, "attack_text_encoder", 0.0)
        if self.unprotected_every and (self.unprotected_every == 1 or not self.inner_steps):
            raise UsageError(
                f"{named('unprotected_every')} ({self.unprotected_every}) needs {named('inner_steps')} above "
                "0, and must be 2 or more, or every attack would be on an unprotected subject; 0 disables it"
            )

    @property
    def rate(self) -> float:
        """AdamW's learning rate for the weights that are trained."""
        return self.learning_rate * (_LOW_RANK_RATE if self.rank else 1.0)

    @property
    def shares_weights(self) -> bool:
        """Whether nothing moves the weights of the original, so that they are held once."""
        return bool(self.rank) and (not self.inner_steps or self.attack_low_rank == 1)

    @property
    def places(self) -> tuple[str, ...]:
        """Prompts besides the training prompt that the method diverts; () for a method without."""
        return getattr(self, "contexts", ())
