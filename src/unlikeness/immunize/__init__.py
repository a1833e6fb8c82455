"""Model + subjects -> model: what a provider does, so that named subjects cannot be personalized.

    subject = Subject.from_folder(folder, "dog", size=model.resolution)
    released = immunize(model, [subject])
    released.save_pretrained("released")

Settings are Stable Diffusion's unless `scaled("toybox", method, 64)` or others are given.

A new method is a file with a settings class and a class with `rows` and `loss`, and one `register` line.
"""

from __future__ import annotations

from unlikeness.immunize.registry import METHODS, Defence, create, method
from unlikeness.immunize.run import immunize
from unlikeness.immunize.scales import scaled

names = METHODS.names
register = METHODS.register

register("apdm", "unlikeness.immunize.apdm:Apdm")
register("adversarial", "unlikeness.immunize.adversarial:Adversarial")
register("imma", "unlikeness.immunize.imma:Imma")
register("persguard", "unlikeness.immunize.persguard:PersGuard")
register("divert", "unlikeness.immunize.divert:Divert")
register("notice", "unlikeness.immunize.notice:Notice")
register("combined", "unlikeness.immunize.combined:Combined")

__all__ = ["Defence", "create", "immunize", "method", "names", "register", "scaled"]
