"""Picture -> picture: a perturbation within a budget that makes the picture hard to personalize from.

    protection = protect.create("advdm", model, {"budget": 8, "steps": 50})
    protected = protection.perturb(images, seeds=range(len(images)))

`folder.protect_folder` does it for files, `tiles` for pictures of any size. A new method is a file with a
settings class and a class with `perturb`, and one `register` line below.
"""

from __future__ import annotations

from unlikeness.protect.registry import METHODS, create, method

names = METHODS.names
register = METHODS.register

register("rid", "unlikeness.protect.rid.method:Rid")
register("advdm", "unlikeness.protect.advdm:AdvDM")
register("photoguard", "unlikeness.protect.photoguard:PhotoGuard")
register("noise", "unlikeness.protect.noise:Noise")

__all__ = ["create", "method", "names", "register"]
