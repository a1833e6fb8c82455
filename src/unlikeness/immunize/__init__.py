"""Model + subjects -> model: what a provider does, so that named subjects cannot be personalized.

    subject = Subject.from_folder(folder, "dog", size=model.resolution)
    released = immunize(model, [subject])
    released.save_pretrained("released")

Settings are Stable Diffusion's unless `scaled("toybox", method, 64)` or others are given.

A new method is a file with a settings class and a class with `rows` and `loss`, and one `register` line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up
from unlikeness.immunize.registry import METHODS, Defence, create, method
from unlikeness.immunize.scales import scaled

if TYPE_CHECKING:
    from unlikeness.immunize.run import immunize

names = METHODS.names
register = METHODS.register

_HERE = "unlikeness.immunize"

register("apdm", f"{_HERE}.apdm:Apdm", settings=f"{_HERE}.method_settings:ApdmSettings")
register("adversarial", f"{_HERE}.adversarial:Adversarial", settings=f"{_HERE}.settings:ImmunizeSettings")
register("imma", f"{_HERE}.imma:Imma", settings=f"{_HERE}.method_settings:ImmaSettings")
register("persguard", f"{_HERE}.persguard:PersGuard", settings=f"{_HERE}.method_settings:PersGuardSettings")
register("divert", f"{_HERE}.divert:Divert", settings=f"{_HERE}.divert_settings:DivertSettings")
register("notice", f"{_HERE}.notice:Notice", settings=f"{_HERE}.divert_settings:NoticeSettings")
register("combined", f"{_HERE}.combined:Combined", settings=f"{_HERE}.method_settings:CombinedSettings")

__all__ = ["Defence", "create", "immunize", "method", "names", "register", "scaled"]

__getattr__ = looked_up(__name__, {"run": ("immunize",)})
