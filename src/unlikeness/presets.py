"""Presets: settings for models of Stable Diffusion's size, which are the defaults, of the toybox's, and those
of other trainers."""

from __future__ import annotations

from unlikeness.errors import UsageError
from unlikeness.settings import named

__all__ = ["PRESETS", "preset_values", "trainers", "which_preset"]

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

_TRAINERS: dict[str, dict[str, dict[str, object]]] = {
    # The commands in sd-scripts' docs/train_network.md and docs/sdxl_train_network.md (kohya-ss/sd-scripts);
    # steps are the default of its --max_train_steps. XL's command keeps the text encoders' outputs, and so
    # trains none.
    "kohya-sd": {
        "personalize lora": {
            "rank": 16, "alpha": 1.0, "learning_rate": 1e-4, "text_encoder": True,
            "text_encoder_learning_rate": 1e-5, "steps": 1600,
        },
    },
    "kohya-sdxl": {
        "personalize lora": {"rank": 32, "alpha": 16.0, "learning_rate": 1e-4, "steps": 1600},
    },
}  # fmt: skip
"""By name, then by command and method."""


def trainers(command: str = "personalize") -> dict[str, str]:
    """The presets of other trainers for this command -> the method that each is for; the first of several."""
    found: dict[str, str] = {}
    for name, those in _TRAINERS.items():
        for key in those:
            if key.startswith(f"{command} "):
                found.setdefault(name, key.partition(" ")[2])
    return found


def which_preset(name: str, resolution: int, command: str = "", method: str = "") -> str:
    """`name`, or for "auto" the preset for a model of this resolution [px]. UsageError for an unknown one, or
    another trainer's for another command or method."""
    if name == "auto":
        return "toybox" if resolution <= _SMALL else "stable-diffusion"
    trainers = [one for one, those in _TRAINERS.items() if f"{command} {method}" in those]
    if name in _TRAINERS and name not in trainers:
        raise UsageError(
            f"{named('preset')} {name} is for {' and '.join(_TRAINERS[name])} alone; give another preset"
        )
    if name not in (*PRESETS, *trainers):
        valid = ", ".join(("auto", *PRESETS, *trainers))
        raise UsageError(f"{named('preset')} {name} is no preset; valid are: {valid}")
    return name


def preset_values(command: str, name: str, resolution: int, method: str = "") -> dict[str, object]:
    """The settings that the preset `name` gives a command, or one of its methods, beside the defaults.

    resolution: the model's [px], for "auto". UsageError for an unknown preset.
    """
    chosen = which_preset(name, resolution, command, method)
    if chosen in _TRAINERS:
        return dict(_TRAINERS[chosen][f"{command} {method}"])
    if chosen == "stable-diffusion":
        return {}
    methods = _TOYBOX[command]
    return dict(methods.get(method, methods.get("", {})))
