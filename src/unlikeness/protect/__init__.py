"""Picture -> picture: an adversarial perturbation within a budget, against personalization.

    protection = protect.create("advdm", model, {"budget": 8, "steps": 50})
    protected = protection.perturb(images, seeds=range(len(images)))

`files.folder.protect_folder` protects files and folders. A new method is one file in `methods`, a settings
class in `settings`, and one line below.
"""

from __future__ import annotations

from unlikeness.protect.registry import METHODS, create, method

names = METHODS.names
register = METHODS.register

for _name, _home, _needs_model in (
    ("rid", "unlikeness.protect.methods.rid:Rid", False),
    ("encoder", "unlikeness.protect.methods.encoder:Encoder", True),
    ("advdm", "unlikeness.protect.methods.advdm:AdvDM", True),
    ("aspl", "unlikeness.protect.methods.aspl:Aspl", True),
    ("photoguard", "unlikeness.protect.methods.photoguard:PhotoGuard", True),
    ("noise", "unlikeness.protect.methods.noise:Noise", True),
):
    _class = _home.partition(":")[2]
    register(_name, _home, settings=f"unlikeness.protect.settings:{_class}Settings", needs_model=_needs_model)

__all__ = ["create", "method", "names", "register"]
