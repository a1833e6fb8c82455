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

for _name, _home, _needs_model in (
    ("rid", "unlikeness.protect.methods.rid:Rid", False),
    ("advdm", "unlikeness.protect.methods.advdm:AdvDM", True),
    ("aspl", "unlikeness.protect.methods.aspl:Aspl", True),
    ("photoguard", "unlikeness.protect.methods.photoguard:PhotoGuard", True),
    ("noise", "unlikeness.protect.methods.noise:Noise", True),
):
    _class = _home.partition(":")[2]
    register(
        _name, _home, settings=f"unlikeness.protect.settings:{_class}Settings", needs_model=_needs_model
    )

__all__ = ["create", "method", "names", "register"]
