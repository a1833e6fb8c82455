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

for _class, _settings in (
    ("Rid", "settings"),
    ("Encoder", "settings"),
    ("AdvDM", "settings"),
    ("Sds", "published"),
    ("Ace", "published"),
    ("PhotoGuard", "settings"),
    ("Dct", "published"),
    ("Universal", "published"),
    ("Aspl", "published"),
    ("SimAC", "published"),
    ("MetaCloak", "published"),
    ("Caat", "published"),
    ("Noise", "settings"),
):
    _name = _class.lower()
    register(
        _name, f"unlikeness.protect.methods.{_name}:{_class}",
        settings=f"unlikeness.protect.{_settings}:{_class}Settings", needs_model=_class != "Rid",
    )  # fmt: skip

__all__ = ["create", "method", "names", "register"]
