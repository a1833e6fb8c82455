"""The procedural world: individuals of several classes in several contexts, drawn as flat illustrations."""

from unlikeness.toybox.world.contexts import CONTEXTS
from unlikeness.toybox.world.identity import CLASS_NOUNS, Identity, sample_identity
from unlikeness.toybox.world.scene import SIZE, Scene, describe, sample_picture, sample_scene, to_images

__all__ = [
    "CLASS_NOUNS",
    "CONTEXTS",
    "SIZE",
    "Identity",
    "Scene",
    "describe",
    "sample_identity",
    "sample_picture",
    "sample_scene",
    "to_images",
]
