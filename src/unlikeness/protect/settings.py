"""Settings of the methods and of the folder job, without torch: they are checked before it loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlikeness.settings import Checked, setting, with_default

__all__ = [
    "ENCODER_PRESETS",
    "WAYS",
    "AdvDMSettings",
    "EncoderSettings",
    "NoiseSettings",
    "PgdSettings",
    "PhotoGuardSettings",
    "ProtectSettings",
    "ResolutionMode",
    "RidSettings",
    "StepSettings",
]  # fmt: skip


WAYS = ("resize", "tiles")


@dataclass(frozen=True, kw_only=True)
class ProtectSettings(Checked):
    """Settings of every method."""

    budget: float = setting(
        8.0, "Largest change of a colour value.", unit="n/255 of the range [0, 1]",
        source="ours: published values run from 6.4 to 16, and methods are compared at one value", above=0.0,
        at_most=255.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StepSettings(ProtectSettings):
    """Projected gradient steps."""

    steps: int = setting(100, "Gradient steps.", unit="steps", source="AdvDM, Mist, SDS: 100", at_least=1)
    step_size: float = setting(
        1.0, "Change of every colour value in one step.", unit="n/255 of the range [0, 1]",
        source="AdvDM, Mist, SDS: 1", above=0.0, at_most=255.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PgdSettings(StepSettings):
    """Projected gradient steps of constant size in the L-infinity ball."""

    random_start: bool = setting(
        True, "Start from a uniform point of the budget's ball rather than from the picture.", source="PGD"
    )


@dataclass(frozen=True, kw_only=True)
class RidSettings(ProtectSettings):
    """A trained network. The budget scales its strength: one set of weights serves 2 to 16 /255."""

    weights: str = setting(
        "rid-photo",
        "A shipped protector's name, a file of `unlikeness train-protector` or `unlikeness export`, or an "
        "official checkpoint (.bin, .safetensors).",
        source="ours: trained against the distilled autoencoders of FLUX.2 and Sana",
    )
    way: str = setting(
        "resize", "How an official checkpoint, which has one fixed size, handles other sizes.", source="ours",
        choices=WAYS,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AdvDMSettings(PgdSettings):
    """100 steps of 1/255, as AdvDM, Mist and SDS publish them."""

    prompt: str = setting("a photo", "The prompt c under which the loss is raised.", source="AdvDM: a photo")
    draws: int = setting(
        1, "Draws of (t, ε) averaged in each step; each costs a pass.", source="AdvDM: 1", at_least=1
    )


@dataclass(frozen=True, kw_only=True)
class PhotoGuardSettings(PgdSettings):
    """100 steps of 1/255; the paper goes up to 200."""

    target: str = setting(
        "grey",
        "Where the latent is pulled to: grey (the latent of a mid-grey picture), zero (the zero latent), "
        "or the path of a picture.",
        source="the paper's text: grey; its code: zero",
    )


OBJECTIVES = ("away", "posterior", "target")


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(StepSettings):
    """12 steps, whose length falls to a fifth. A picture that gains nothing more ends before."""

    steps: int = with_default(
        StepSettings, "steps", 12, doc="Gradient steps, at most.", source="ours, on photographs"
    )
    step_size: float = with_default(
        StepSettings, "step_size", 4.0, doc="Length of the first step, as a root mean square.",
        source="ours, on photographs",
    )  # fmt: skip
    start: str = setting(
        "network",
        "network: start from the perturbation of the network rid-photo, which is worth several steps. noise: "
        "from uniform noise.",
        source="ours, on photographs", choices=("network", "noise"),
    )  # fmt: skip
    psnr: float = setting(
        36.0, "The change is kept this faint from the first step on. 20 is no bound beside a budget of 8.",
        unit="dB", source="ours", at_least=10.0, at_most=100.0,
    )  # fmt: skip
    flat: float = setting(
        0.1, "Share of the budget where the picture is flat (sky, skin, a wall), and less where a regular "
        "pattern would be noticed. 1: the whole budget everywhere.",
        source="ours: at a budget of 8 about a step of 1/255", at_least=0.0, at_most=1.0,
    )  # fmt: skip
    transforms: bool = setting(
        True, "Compute through what trainers and websites do: resizing, crops, flips and JPEG.",
        source="ours: see protect/trainers_view.py",
    )  # fmt: skip
    objective: str = setting(
        "away",
        "away: move the latent away from the picture's. posterior: its standard deviation too. target: pull "
        "it to the target's.",
        source="away: ours; posterior: PID; target: PhotoGuard, Mist", choices=OBJECTIVES,
    )  # fmt: skip
    target: str = setting(
        "farthest",
        "For the objective target: farthest (of six synthetic pictures the farthest from each picture), "
        "grey, zero (the zero latent), pattern (black and white squares), or the path of a picture.",
        source="ours",
    )  # fmt: skip


ENCODER_PRESETS: Mapping[str, Mapping[str, object]] = {
    "photoguard": {
        "objective": "target", "target": "grey", "transforms": False, "flat": 1.0, "psnr": 20.0, "steps": 100,
        "step_size": 1.0, "start": "noise",
    },
    "mist": {
        "objective": "target", "transforms": False, "flat": 1.0, "psnr": 20.0, "steps": 100, "step_size": 1.0,
        "start": "noise",
    },
    "pid": {
        "objective": "posterior", "transforms": False, "flat": 1.0, "psnr": 20.0, "steps": 100,
        "step_size": 1.0, "start": "noise",
    },
}  # fmt: skip
"""Settings of the method `encoder` that aim where these methods aim, by its own steps. Mist's second term,
the diffusion loss, is left out: it needs a denoiser. At a budget of 8 they have no further bound."""


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(ProtectSettings):
    """Sign noise has the energy of a gradient protection's result; uniform noise has a third of it."""

    kind: str = setting(
        "sign", "Every value moved by the whole budget up or down (sign), or by a uniform part of it.",
        source="ours: gradient protections end at the budget nearly everywhere", choices=("sign", "uniform"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ResolutionMode(Checked):
    """The resolution at which perturbations are computed."""

    mode: str = setting(
        "fit",
        "fit: as a trainer will see the picture; tiles: at its own size; both: half of the budget for each.",
        source="ours, measured in protect/tiling/tiles.py", choices=("fit", "tiles", "both"),
    )  # fmt: skip
    detail: float = setting(
        2.0, "Short side of the copy that fit works on.", unit="times the model's resolution",
        source="ours, measured in protect/tiling/tiles.py", at_least=1.0, at_most=8.0,
    )  # fmt: skip
    overlap: float = setting(
        0.125, "Where two tiles are cross-faded.", unit="of a tile", source="ours", at_least=0.0, at_most=0.5
    )
