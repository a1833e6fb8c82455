"""Picture -> picture: a perturbation within a budget, meant to make it hard to personalize from the picture.

    protection = protect.create("advdm", model, {"budget": 8, "steps": 50})
    protected = protection.perturb(images, seeds=range(len(images)))

`folder.protect_folder` does it for files, `tiles` for pictures of any size. A new method is a file with a
settings class and a class with `perturb`, and one `register` line below.
"""

from __future__ import annotations

from unlikeness.protect.registry import METHODS, create, method

names = METHODS.names
register = METHODS.register

_SETTINGS = "unlikeness.protect.settings"

register(
    "rid", "unlikeness.protect.rid.method:Rid",
    settings="unlikeness.protect.rid.settings:RidSettings", needs_model=False,
)  # fmt: skip
register("advdm", "unlikeness.protect.advdm:AdvDM", settings=f"{_SETTINGS}:AdvDMSettings", needs_model=True)
register(
    "photoguard", "unlikeness.protect.photoguard:PhotoGuard",
    settings=f"{_SETTINGS}:PhotoGuardSettings", needs_model=True,
)  # fmt: skip
register("noise", "unlikeness.protect.noise:Noise", settings=f"{_SETTINGS}:NoiseSettings", needs_model=True)

__all__ = ["create", "method", "names", "register"]
