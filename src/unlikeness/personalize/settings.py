"""Settings of all personalizations, with the defaults of the literature."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.settings import Checked, named, setting, with_default

__all__ = [
    "CustomDiffusionSettings", "DreamBoothSettings", "LoRASettings", "LoRATISettings", "PersonalizeSettings",
    "TextualInversionSettings", "TrainerSettings", "WordSettings",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PersonalizeSettings(Checked):
    """Training on pictures of a subject, with prior preservation. Defaults are for Stable Diffusion."""

    steps: int = setting(800, "Optimizer steps.", unit="steps", source="APDM's attacker", at_least=1)
    learning_rate: float = setting(5e-6, "AdamW's step size.", source="APDM's attacker", at_least=0.0)
    batch_size: int = setting(
        1,
        "Pictures of the subject in a step, and as many of its class.",
        source="APDM's attacker",
        at_least=1,
    )
    warmup: int = setting(0, "Steps over which the learning rate rises.", unit="steps", at_least=0)
    weight_decay: float = setting(0.01, "AdamW's decoupled weight decay.", source="AdamW", at_least=0.0)
    clip: float = setting(
        1.0, "Largest norm of the gradient; 0: unbounded.", source="DreamBooth in diffusers; APDM",
        at_least=0.0,
    )  # fmt: skip
    prior_weight: float = setting(
        1.0,
        "Weight w of the prior-preservation loss; 0 leaves it out.",
        source="Ruiz et al. 2023, Eq. 2: 1",
        at_least=0.0,
    )
    class_images: int = setting(
        200,
        "Pictures of the class that the attacked model draws for the prior; 0 leaves it out.",
        unit="pictures",
        source="APDM's attacker; Ruiz et al. 2023 use 200 a subject image",
        at_least=0,
    )
    class_steps: int | None = setting(
        None, "Solver steps for a class picture; none takes the model's own (mostly 25).", unit="steps",
        at_least=1,
    )  # fmt: skip
    class_guidance: float | None = setting(None, "Guidance for class pictures; none takes the model's own.")
    class_seed: int = setting(
        1_000_000, "Seed of the first class picture; the others follow.", at_least=0, at_most=2**62
    )
    flip: bool = setting(False, "Learn from the mirrored pictures too.")
    crop: float = setting(
        1.0,
        "Least side of a random crop; 1 learns from whole pictures.",
        unit="share of the picture's side",
        at_least=0.1,
        at_most=1.0,
    )
    views: int = setting(
        8, "Random crops of a picture, encoded once, where crop is below 1.", unit="crops", at_least=1
    )
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
        "Hold AdamW's states in 8 bits, a quarter of their memory; needs bitsandbytes (extra eight-bit).",
        source="Dettmers et al. 2022; --use_8bit_adam in diffusers' scripts",
    )
    seed: int = setting(0, "Seed of everything that is drawn while training.", at_least=0, at_most=2**62)


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(PersonalizeSettings):
    """How a trainer prepares pictures and prompts. Defaults are a central square, and a fresh sample."""

    captions: bool = setting(
        False,
        "Learn each picture under the text in the file beside it (dog.txt for dog.jpg), if it has one.",
        source="sd-scripts, ai-toolkit, OneTrainer: yes",
    )  # fmt: skip
    fit: str = setting(
        "square",
        "Central squares; whole pictures in buckets of similar aspect; or random squares without resizing.",
        source="diffusers: square; sd-scripts, ai-toolkit, OneTrainer: bucket; SimpleTuner: crop",
        choices=("square", "bucket", "crop"),
    )  # fmt: skip
    filter: str = setting(
        "lanczos", "Filter that resizes pictures; area enlarges with Lanczos.",
        source="diffusers, OneTrainer: bilinear; ai-toolkit: bicubic; sd-scripts: area",
        choices=("lanczos", "bilinear", "bicubic", "area"),
    )  # fmt: skip
    posterior: str = setting(
        "sample", "Latents of a picture: a fresh sample at each step, one sample for all, or the mean.",
        source="diffusers, ai-toolkit: sample; sd-scripts: cached; OneTrainer: mean",
        choices=("sample", "cached", "mean"),
    )  # fmt: skip


    @property
    def fits(self) -> bool:
        """Whether pictures are fitted from their own sizes, in another way than `Subject.images`."""
        return (self.fit, self.filter) != ("square", "lanczos")


@dataclass(frozen=True, kw_only=True)
class DreamBoothSettings(TrainerSettings):
    """APDM's attacker: the denoiser alone, AdamW at 5e-6, 800 steps of one picture."""

    text_encoder: bool = setting(
        False, "Train the text encoder too.", source="APDM's attacker: no; Anti-DreamBooth's and RID's: yes"
    )


@dataclass(frozen=True, kw_only=True)
class LoRASettings(TrainerSettings):
    """Rank 16 on the denoiser's attention projections, AdamW at 1e-4."""

    rank: int = setting(16, "Rank of the updates.", source="in use: 4 to 32; RID's attacker: 32", at_least=1)
    dora: bool = setting(
        False, "Train a magnitude beside each update's direction (DoRA).", source="arXiv 2402.09353; peft",
    )  # fmt: skip
    alpha: float | None = setting(
        None, "Updates count alpha / rank; none: in full.", source="diffusers: in full; kohya: 1 to rank",
        at_least=0.0,
    )  # fmt: skip
    learning_rate: float = setting(1e-4, "AdamW's step size.", source="in use: 1e-4 to 3e-4", at_least=0.0)
    text_encoder: bool = setting(
        False,
        "Train updates of the CLIPs' attention too.",
        source="diffusers' train_dreambooth_lora.py and _sdxl.py: no",
    )
    text_encoder_learning_rate: float | None = setting(
        None,
        "AdamW's step size for text encoders; none: learning_rate.",
        source="diffusers' train_dreambooth_lora.py: the same; _sdxl.py: 5e-6; kohya: 1e-5",
        at_least=0.0,
    )
    class_images: int = setting(
        100,
        "Pictures of the class that the attacked model draws for the prior; 0 leaves it out.",
        unit="pictures",
        source="RID's attacker",
        at_least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_encoder_learning_rate is not None and not self.text_encoder:
            raise UsageError(
                f"{named('text_encoder_learning_rate')} has no effect without {named('text_encoder')}; give "
                "both, or neither"
            )


@dataclass(frozen=True, kw_only=True)
class WordSettings(TrainerSettings):
    """A new word `<identifier>`, whose vectors in the CLIPs are trained."""

    vectors: int = setting(
        1, "Vectors of the new word, each of which takes a token of a prompt.", source="Gal et al. 2023: 1",
        at_least=1, at_most=64,
    )  # fmt: skip
    initializer: str = setting(
        "", "Words whose mean vector the new word starts from; empty: the class noun.",
        source="Textual Inversion: a word for the class; RID, Custom Diffusion: ktn, a rare one",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextualInversionSettings(WordSettings):
    """The word's vectors alone, 3000 steps at 5e-4, without class pictures."""

    steps: int = with_default(PersonalizeSettings, "steps", 3000, source="diffusers' textual_inversion.py")
    learning_rate: float = with_default(
        PersonalizeSettings, "learning_rate", 5e-4, source="diffusers' textual_inversion.py, without scaling"
    )
    prior_weight: float = with_default(
        PersonalizeSettings, "prior_weight", 0.0, source="Gal et al. 2023: none"
    )


@dataclass(frozen=True, kw_only=True)
class LoRATISettings(WordSettings, LoRASettings):
    """RID's main attacker: rank 32 and a word's vectors, 221 steps at 3e-4."""

    steps: int = with_default(PersonalizeSettings, "steps", 221, source="RID's attacker")
    learning_rate: float = with_default(PersonalizeSettings, "learning_rate", 3e-4, source="RID's attacker")
    rank: int = with_default(LoRASettings, "rank", 32, source="RID's attacker")
    initializer: str = with_default(WordSettings, "initializer", "ktn", source="RID's attacker")


@dataclass(frozen=True, kw_only=True)
class CustomDiffusionSettings(WordSettings):
    """Keys and values of the prompt in attention, and a word's vectors; 250 steps of two pictures at 4e-5."""

    steps: int = with_default(
        PersonalizeSettings, "steps", 250, source="diffusers' examples/custom_diffusion/README.md"
    )
    learning_rate: float = with_default(
        PersonalizeSettings, "learning_rate", 4e-5,
        source="the same: 1e-5, scaled by two pictures and their class pictures",
    )  # fmt: skip
    batch_size: int = with_default(PersonalizeSettings, "batch_size", 2, source="the same")
    flip: bool = with_default(PersonalizeSettings, "flip", True, source="the same: --hflip")
    initializer: str = with_default(WordSettings, "initializer", "ktn", source="the same")
