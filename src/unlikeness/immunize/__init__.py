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

register("apdm", f"{_HERE}.methods.apdm:Apdm", settings=f"{_HERE}.methods.settings:ApdmSettings")
register("adversarial", f"{_HERE}.methods.adversarial:Adversarial", settings=f"{_HERE}.settings:ImmunizeSettings")
register("imma", f"{_HERE}.methods.imma:Imma", settings=f"{_HERE}.methods.settings:ImmaSettings")
register("persguard", f"{_HERE}.methods.persguard:PersGuard", settings=f"{_HERE}.methods.settings:PersGuardSettings")
register("divert", f"{_HERE}.methods.divert:Divert", settings=f"{_HERE}.divert_settings:DivertSettings")
register("notice", f"{_HERE}.methods.notice:Notice", settings=f"{_HERE}.divert_settings:NoticeSettings")
register("combined", f"{_HERE}.methods.combined:Combined", settings=f"{_HERE}.methods.settings:CombinedSettings")

__all__ = ["Defence", "create", "immunize", "method", "names", "register", "scaled"]

__getattr__ = looked_up(__name__, {"run": ("immunize",)})
