"""Families of models, one file each.

Add a family in two steps: write a file here with a class derived from `Family`, and enter it below under the
pipeline class that its `model_index.json` names.
"""

from __future__ import annotations

from importlib import import_module

from unlikeness.diffusion.families.family import Family

__all__ = ["FAMILIES", "Family", "family_of"]

FAMILIES = {
    "StableDiffusionPipeline": "unlikeness.diffusion.families.stable_diffusion:StableDiffusion",
}


def family_of(pipeline: str) -> Family:
    """The family of a pipeline class in `FAMILIES`."""
    module, _, name = FAMILIES[pipeline].partition(":")
    family: Family = getattr(import_module(module), name)()
    return family
