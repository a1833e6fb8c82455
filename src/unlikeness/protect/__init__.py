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

for _name, _needs_model, _class in (
    ("rid", False, "Rid"),
    ("advdm", True, "AdvDM"),
    ("photoguard", True, "PhotoGuard"),
    ("noise", True, "Noise"),
):
    register(
        _name,
        f"unlikeness.protect.methods.{_name}:{_class}",
        settings=f"{_SETTINGS}:{_class}Settings",
        needs_model=_needs_model,
    )

__all__ = ["create", "method", "names", "register"]
