"""Settings of further published methods, and the presets of all methods, without torch.

The budget is the same for all, 8, so that methods can be compared. Each class names the published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.protect.settings import ENCODER_PRESETS, PgdSettings, ProtectSettings, StepSettings
from unlikeness.settings import named, setting, with_default
from unlikeness.words import closest

__all__ = [
    "PRESETS", "AceSettings", "AsplSettings", "CaatSettings", "DctSettings", "LearningSettings",
    "MetaCloakSettings", "SdsSettings", "SimACSettings", "UniversalSettings", "method_of_preset",
    "preset_of",
]  # fmt: skip

_PGD = "n/255 of the range [0, 1]"


@dataclass(frozen=True, kw_only=True)
class SdsSettings(PgdSettings):
    """100 steps of 1/255 from the picture itself. The published budget is 16."""

    random_start: bool = with_default(PgdSettings, "random_start", False, source="Diff-Protect: off")
    direction: str = setting(
        "minimise",
        "Whether the diffusion loss is lowered (minimise: a fainter, smoother change) or raised (maximise).",
        source="Diff-Protect: SDS(-) and SDS(+); it recommends the first", choices=("minimise", "maximise"),
    )  # fmt: skip
    prompt: str = setting("a photo", "The prompt c under which the model predicts.", source="Diff-Protect")
    draws: int = setting(
        1, "Draws of (t, ε) averaged in each step; each costs a pass.", source="Diff-Protect: 1", at_least=1
    )


@dataclass(frozen=True, kw_only=True)
class AceSettings(PgdSettings):
    """100 steps of 1/255 to one target for all pictures."""

    target: str = setting(
        "pattern",
        "The one target of all pictures: pattern (black and white squares), grey, zero (the zero latent), or "
        "the path of a picture.",
        source="ACE: a high-contrast pattern",
    )  # fmt: skip
    score: str = setting(
        "target",
        "What is done to the denoiser's prediction: target (pulled to the target), or loss (the diffusion "
        "loss is raised, as in Mist).",
        source="ACE; Mist", choices=("target", "loss"),
    )  # fmt: skip
    latent_weight: float = setting(
        1.0, "Weight of the latent's distance to the target; 0 leaves it out.", source="ours", at_least=0.0
    )
    prompt: str = setting("a photo", "The prompt c under which the model predicts.", source="AdvDM: a photo")


@dataclass(frozen=True, kw_only=True)
class DctSettings(PgdSettings):
    """100 steps in the coefficients of 8 × 8 blocks."""

    step_size: float = with_default(
        StepSettings, "step_size", 1.0, doc="Length of a step, as a root mean square.", source="ours"
    )
    target: str = setting(
        "grey",
        "Where the latent is pulled to: grey, zero (the zero latent), pattern, or the path of a picture.",
        source="PhotoGuard: grey",
    )
    quality: int = setting(
        75, "The JPEG quality whose steps the changes of the coefficients are proportional to.",
        source="ours", at_least=1, at_most=100,
    )  # fmt: skip
    highest: int = setting(
        6, "Highest frequency that changes: the sum of a coefficient's two places in its block.",
        unit="0 to 14", source="ours", at_least=0, at_most=14,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class UniversalSettings(StepSettings):
    """One perturbation for all pictures, learnt in 200 steps from synthetic ones."""

    steps: int = with_default(StepSettings, "steps", 200, doc="Steps that learn it.", source="ours")
    pictures: int = setting(
        32, "Synthetic pictures that it is learnt from.", unit="pictures", source="ours", at_least=1
    )
    batch_size: int = setting(
        4, "Pictures in a step.", unit="pictures", source="ours", at_least=1
    )
    cache: str = setting(
        "", "Folder that keeps the perturbation: a later run only adds it. Empty: it is learnt in each run."
    )


@dataclass(frozen=True, kw_only=True)
class LearningSettings(ProtectSettings):
    """Of methods that follow a model while it learns the subject (DreamBooth)."""

    class_noun: str = setting(
        "person", "Class noun of the subject (person, dog, ...).", source="Anti-DreamBooth: person"
    )
    identifier: str = setting("sks", "Identifier token of the subject.", source="Anti-DreamBooth: sks")
    pgd_steps: int = setting(
        6, "Gradient steps on the pictures in each round.", unit="steps", source="Anti-DreamBooth: 6",
        at_least=1,
    )  # fmt: skip
    step_size: float = setting(
        0.64, "Change of every colour value in one gradient step.", unit=_PGD,
        source="Anti-DreamBooth: 0.005 of [-1, 1]", above=0.0, at_most=255.0,
    )  # fmt: skip
    learning_rate: float = setting(
        5e-7, "AdamW's step size; only the denoiser is trained.",
        source="Anti-DreamBooth: 5e-7, with the text encoder", at_least=0.0,
    )  # fmt: skip
    batch_size: int = setting(
        1, "Pictures of the subject in a training step, and as many of its class.", source="ours: the least",
        at_least=1,
    )  # fmt: skip
    prior_weight: float = setting(
        1.0, "Weight w of the prior-preservation loss; 0 leaves it out.", source="Ruiz et al. 2023, Eq. 2: 1",
        at_least=0.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AsplSettings(LearningSettings):
    """50 rounds of 3 clean steps, 6 gradient steps and 3 perturbed steps. The published budget is 6.4."""

    rounds: int = setting(50, "Rounds.", unit="rounds", source="Anti-DreamBooth: 50", at_least=1)
    clean_steps: int = setting(
        3, "Training steps on the clean pictures in each round; their result is discarded after it.",
        unit="steps", source="Anti-DreamBooth: 3", at_least=0,
    )  # fmt: skip
    perturbed_steps: int = setting(
        3, "Training steps on the perturbed pictures in each round; their result is kept.", unit="steps",
        source="Anti-DreamBooth: 3", at_least=0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SimACSettings(AsplSettings):
    """ASPL's rounds. The published budget is 8."""

    feature_weight: float = setting(
        1.0,
        "Weight of the feature loss; 0 leaves it out, as the released code does in effect.",
        source="SimAC's paper: 1", at_least=0.0,
    )  # fmt: skip
    search_steps: int = setting(
        50, "Most steps of the search for noise levels; 0: every level is drawn.", unit="steps",
        source="SimAC's released code: until a tenth of the levels is left", at_least=0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MetaCloakSettings(LearningSettings):
    """4 trials along a fine-tune of 1,000 steps: 14,400 gradient steps. The published budget is 11."""

    step_size: float = with_default(
        LearningSettings, "step_size", 1.0, source="MetaCloak's released code: 1 of 255"
    )
    trials: int = setting(4, "Passes over the fine-tune.", unit="trials", source="MetaCloak: 4", at_least=1)
    train_steps: int = setting(
        1000, "Steps of the fine-tune on the clean pictures, whose models are the surrogates.", unit="steps",
        source="MetaCloak: 1000", at_least=0,
    )  # fmt: skip
    interval: int = setting(
        200, "Training steps from one surrogate of the fine-tune to the next.", unit="steps",
        source="MetaCloak: 200", at_least=1,
    )  # fmt: skip
    advance: int = setting(
        2, "Training steps on the perturbed pictures after each round of gradient steps; a surrogate goes "
        "interval steps far.",
        unit="steps", source="MetaCloak: 2", at_least=1,
    )  # fmt: skip
    transforms: bool = setting(
        True, "Compute through a blur of random strength and a random flip.", source="MetaCloak"
    )


@dataclass(frozen=True, kw_only=True)
class CaatSettings(StepSettings):
    """250 steps of 0.64/255. The published budget is 6.4."""

    steps: int = with_default(StepSettings, "steps", 250, source="CAAT's released code: 250")
    step_size: float = with_default(
        StepSettings, "step_size", 0.64, source="CAAT's released code: 0.005 of [-1, 1]"
    )
    learning_rate: float = setting(
        1e-5, "AdamW's step size for keys and values of cross-attention.", source="CAAT's code: 1e-5",
        at_least=0.0,
    )  # fmt: skip
    prompt: str = setting(
        "a photo of a person", "The prompt that the model learns the pictures under.",
        source="CAAT's released code",
    )


PRESETS: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "encoder": ENCODER_PRESETS,
    "aspl": {"fsmg": {"rounds": 1, "clean_steps": 1000, "perturbed_steps": 0, "pgd_steps": 100}},
    "simac": {"released": {"feature_weight": 0.0}},
    "ace": {"mist-loss": {"score": "loss", "latent_weight": 1.6}},
}  # fmt: skip
"""By method and name: another published method, or the released code of one, as settings.

fsmg: a fixed surrogate, fine-tuned on the clean pictures (Anti-DreamBooth's Algorithm 0). mist-loss: Mist's
sum of latent distance and 10,000 times the diffusion loss, for latents of 4 × 64 × 64 values."""


def method_of_preset(name: str) -> str:
    """The method that has this preset. UsageError for an unknown one."""
    for method, presets in PRESETS.items():
        if name in presets:
            return method
    known = [preset for presets in PRESETS.values() for preset in presets]
    raise UsageError(
        f"{named('preset')} {name} is no preset{closest(name, known)}; valid are: {', '.join(known)}"
    )


def preset_of(method: str, name: str) -> dict[str, object]:
    """The values of a method's preset. UsageError for an unknown one, and one of another method."""
    owner = method_of_preset(name)
    if name not in PRESETS.get(method, {}):
        raise UsageError(f"{named('preset')} {name} is for the method {owner}, not {method}; leave one out")
    return dict(PRESETS[method][name])
