"""Model + subjects -> model: what a provider does, so that named subjects cannot be personalized.

    subject = Subject.from_folder(folder, "dog", size=model.resolution)
    released = immunize(model, [subject])
    released.save_pretrained("released")

Settings are Stable Diffusion's; `presets.preset_values` has those of the toybox.

A new method is a file with a settings class and a class with `rows` and `loss`, and one `register` line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up
from unlikeness.immunize.registry import METHODS, Defence, create, method

if TYPE_CHECKING:
    from unlikeness.immunize.run import immunize

names = METHODS.names
register = METHODS.register

_METHODS = "unlikeness.immunize.methods"

for _name, _home, _settings in (
    ("apdm", "apdm:Apdm", "settings:ApdmSettings"),
    ("adversarial", "adversarial:Adversarial", "settings:ImmunizeSettings"),
    ("imma", "imma:Imma", "settings:ImmaSettings"),
    ("persguard", "persguard:PersGuard", "settings:PersGuardSettings"),
    ("divert", "divert:Divert", "divert_settings:DivertSettings"),
    ("notice", "notice:Notice", "divert_settings:NoticeSettings"),
    ("combined", "combined:Combined", "settings:CombinedSettings"),
):
    register(_name, f"{_METHODS}.{_home}", settings=f"{_METHODS}.{_settings}")

__all__ = ["Defence", "create", "immunize", "method", "names", "register"]

__getattr__ = looked_up(__name__, {"run": ("immunize",)})
