"""Presets: settings for models of Stable Diffusion's size, which are the defaults, and of the toybox's."""

from __future__ import annotations

from unlikeness.errors import UsageError
from unlikeness.settings import named

__all__ = ["PRESETS", "preset_values", "which_preset"]

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


def which_preset(name: str, resolution: int) -> str:
    """`name`, or for "auto" the preset for a model of this resolution [px]. UsageError for an unknown one."""
    if name == "auto":
        return "toybox" if resolution <= _SMALL else "stable-diffusion"
    if name not in PRESETS:
        raise UsageError(f"{named('preset')} {name} is no preset; valid are: auto, {', '.join(PRESETS)}")
    return name


def preset_values(command: str, name: str, resolution: int, method: str = "") -> dict[str, object]:
    """The settings that the preset `name` gives a command, or one of its methods, beside the defaults.

    resolution: the model's [px], for "auto". UsageError for an unknown preset.
    """
    if which_preset(name, resolution) == "stable-diffusion":
        return {}
    methods = _TOYBOX[command]
    return dict(methods.get(method, methods.get("", {})))
