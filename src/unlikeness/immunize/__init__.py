"""Immunize: change a model so that named subjects cannot be personalized.

    subject = Subject.from_folder(folder, "dog", size=model.resolution)
    released = immunize(model, [subject])
    released.save_pretrained("released")

Default settings are for Stable Diffusion; `presets.preset_values` has those of the toybox.

A new method is a file with a settings class and a class with `batch` and `loss`, and one line in `registry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up
from unlikeness.immunize.registry import METHODS, Defence, create, method

if TYPE_CHECKING:
    from unlikeness.immunize.run import immunize

names = METHODS.names
register = METHODS.register

__all__ = ["Defence", "create", "immunize", "method", "names", "register"]

__getattr__ = looked_up(__name__, {"run": ("immunize",)})
