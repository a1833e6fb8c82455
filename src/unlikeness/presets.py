"""Presets: settings for models of Stable Diffusion's size, which are the defaults, of the toybox's, and those
of other attackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.settings import named

__all__ = ["ATTACKS", "PRESETS", "Preset", "preset_values", "trainers", "which_preset"]

PRESETS = ("stable-diffusion", "toybox")

_SMALL = 128
"""Largest resolution [px] for which "auto" is the toybox's preset."""

_IMMUNIZE: dict[str, object] = {
    "learning_rate": 2e-4, "attack_learning_rate": 1e-4, "batch_size": 4, "attack_batch_size": 4,
}  # fmt: skip

_TOYBOX: dict[str, dict[str, dict[str, object]]] = {
    # Chosen on tuning subjects.
    "personalize": {
        "dreambooth": {"steps": 400, "learning_rate": 5e-4, "batch_size": 4, "class_images": 100},
        "lora": {"steps": 400, "learning_rate": 3e-3, "batch_size": 4, "class_images": 100},
        "lora_ti": {"steps": 400, "learning_rate": 3e-3, "batch_size": 4, "class_images": 100},
        "textual_inversion": {"steps": 400, "learning_rate": 2e-2, "batch_size": 4, "vectors": 8},
        "custom_diffusion": {"steps": 400, "learning_rate": 4e-3, "batch_size": 4, "class_images": 100},
    },
    # The results page was measured with those of `divert` and `notice`; others have shorter runs there.
    "immunize": {
        "": _IMMUNIZE,
        "divert": {
            **_IMMUNIZE, "learning_rate": 3e-4, "attack_learning_rate": 3e-4, "preserve_batch_size": 32,
        },
        "notice": {
            **_IMMUNIZE, "attack_learning_rate": 3e-4, "batch_size": 2, "attack_batch_size": 2,
            "preserve_batch_size": 8,
        },
        "persguard": {**_IMMUNIZE, "learning_rate": 3e-4},
    },
    "verify": {
        "": {
            "steps": 400, "learning_rate": 5e-4, "batch_size": 4, "class_images": 100,
            "lora_learning_rate": 3e-3,
        },
    },
}  # fmt: skip
"""By command and method; "" stands for every method without an entry of its own."""

@dataclass(frozen=True)
class Preset:
    """One attacker of others: a paper's, or a trainer's own configuration.

    values: settings of the method at full size. toybox: what differs for a model of the toybox's size.
    """

    name: str
    method: str
    what: str
    source: str
    values: Mapping[str, object]
    toybox: Mapping[str, object]


_SQUARE: dict[str, object] = {"filter": "bilinear"}
_KOHYA: dict[str, object] = {"captions": True, "fit": "bucket", "filter": "area", "posterior": "cached"}
_AI_TOOLKIT: dict[str, object] = {"captions": True, "fit": "bucket", "filter": "bicubic"}
_ONETRAINER = _SQUARE | {"captions": True, "fit": "bucket", "posterior": "mean"}
"""How these trainers prepare pictures: see `TrainerSettings`."""

_SMALL_DREAMBOOTH = {"steps": 400, "learning_rate": 5e-4, "batch_size": 4, "class_images": 100}
_SMALL_LORA = {"steps": 400, "learning_rate": 3e-3, "batch_size": 4}

ATTACKS = (
    Preset(
        "apdm", "dreambooth", "DreamBooth of the denoiser, 800 steps at 5e-6",
        "APDM, arXiv 2511.01307, implementation details",
        _SQUARE | {"steps": 800, "learning_rate": 5e-6, "batch_size": 1, "class_images": 200},
        _SMALL_DREAMBOOTH,
    ),
    Preset(
        "anti-dreambooth", "dreambooth", "DreamBooth with the text encoder, 1000 steps at 5e-7",
        "VinAIResearch/Anti-DreamBooth, scripts/train_dreambooth_alone.sh",
        _SQUARE
        | {"steps": 1000, "learning_rate": 5e-7, "batch_size": 2, "class_images": 200, "text_encoder": True},
        _SMALL_DREAMBOOTH | {"learning_rate": 2e-4},
    ),
    Preset(
        "rid", "lora_ti", "LoRA of rank 32 and a new word, 221 steps at 3e-4",
        "Guohanzhong/RID, tuning-based-personalization/config/sd_lora.py",
        _SQUARE
        | {
            "rank": 32, "learning_rate": 3e-4, "steps": 221, "batch_size": 1, "class_images": 100,
            "initializer": "ktn",
        },
        _SMALL_LORA,
    ),
    Preset(
        "kohya-sd", "lora", "LoRA of rank 16, alpha 1, with the text encoder at a tenth of the rate",
        "kohya-ss/sd-scripts, docs/train_network.md; steps: the default of --max_train_steps",
        _KOHYA
        | {
            "rank": 16, "alpha": 1.0, "learning_rate": 1e-4, "text_encoder": True,
            "text_encoder_learning_rate": 1e-5, "steps": 1600, "prior_weight": 0.0,
        },
        _SMALL_LORA | {"learning_rate": 1e-2, "text_encoder_learning_rate": 1e-3},
    ),
    Preset(
        "kohya-sdxl", "lora", "LoRA of rank 32, alpha 16",
        "kohya-ss/sd-scripts, docs/sdxl_train_network.md; steps: the default of --max_train_steps",
        _KOHYA | {"rank": 32, "alpha": 16.0, "learning_rate": 1e-4, "steps": 1600, "prior_weight": 0.0},
        _SMALL_LORA,
    ),
    Preset(
        "ai-toolkit", "lora", "LoRA of rank 32, alpha 32, 3000 steps",
        "ostris/ai-toolkit, ui/src/app/jobs/new/jobConfig.ts",
        _AI_TOOLKIT
        | {
            "rank": 32, "alpha": 32.0, "learning_rate": 1e-4, "steps": 3000, "weight_decay": 1e-4,
            "prior_weight": 0.0,
        },
        _SMALL_LORA,
    ),
    Preset(
        "onetrainer", "lora", "LoRA of rank 16, alpha 1, at 3e-4",
        "Nerogar/OneTrainer, training_presets/#sdxl 1.0 LoRA.json; 100 epochs of 20 pictures",
        _ONETRAINER
        | {
            "rank": 16, "alpha": 1.0, "learning_rate": 3e-4, "steps": 500, "batch_size": 4, "warmup": 200,
            "prior_weight": 0.0,
        },
        _SMALL_LORA | {"learning_rate": 1e-2, "warmup": 40},
    ),
    Preset(
        "diffusers", "lora", "LoRA of rank 4, 500 steps",
        "huggingface/diffusers, examples/dreambooth/README.md and train_dreambooth_lora.py",
        _SQUARE | {"rank": 4, "learning_rate": 1e-4, "steps": 500, "prior_weight": 0.0},
        _SMALL_LORA,
    ),
)  # fmt: skip
"""Attackers of others for `personalize`, each with its source. The toybox's values were chosen on tuning
subjects: as many steps for all, at a rate at which the subject is learnt."""

_ATTACKS = {one.name: one for one in ATTACKS}


def trainers(command: str = "personalize") -> dict[str, str]:
    """The names in `ATTACKS` -> the method that each is for. Other commands have none."""
    return {one.name: one.method for one in ATTACKS} if command == "personalize" else {}


def which_preset(name: str, resolution: int, command: str = "", method: str = "") -> str:
    """`name`, or for "auto" the preset for a model of this resolution [px]. UsageError for an unknown one, or
    another trainer's for another command or method."""
    if name == "auto":
        return "toybox" if resolution <= _SMALL else "stable-diffusion"
    usable = [one for one, whose in trainers(command).items() if whose == method]
    if name in _ATTACKS and name not in usable:
        raise UsageError(
            f"{named('preset')} {name} is for personalize {_ATTACKS[name].method} alone; give another preset"
        )
    if name not in (*PRESETS, *usable):
        valid = ", ".join(("auto", *PRESETS, *usable))
        raise UsageError(f"{named('preset')} {name} is no preset; valid are: {valid}")
    return name


def preset_values(command: str, name: str, resolution: int, method: str = "") -> dict[str, object]:
    """The settings that the preset `name` gives a command, or one of its methods, beside the defaults.

    resolution: the model's [px], for "auto". UsageError for an unknown preset.
    """
    chosen = which_preset(name, resolution, command, method)
    if chosen in _ATTACKS:
        found = _ATTACKS[chosen]
        return {**found.values, **(found.toybox if resolution <= _SMALL else {})}
    if chosen == "stable-diffusion":
        return {}
    methods = _TOYBOX[command]
    return dict(methods.get(method, methods.get("", {})))
