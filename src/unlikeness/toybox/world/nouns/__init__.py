"""How each class noun is drawn: one file a noun, one function each."""

from __future__ import annotations

from collections.abc import Callable

from unlikeness.toybox.world.canvas import Canvas
from unlikeness.toybox.world.identity import Identity
from unlikeness.toybox.world.nouns.backpack import draw_backpack
from unlikeness.toybox.world.nouns.cat import draw_cat
from unlikeness.toybox.world.nouns.dog import draw_dog
from unlikeness.toybox.world.nouns.mug import draw_mug
from unlikeness.toybox.world.nouns.person import draw_person
from unlikeness.toybox.world.nouns.robot import draw_robot

DRAW: dict[str, Callable[[Canvas, Identity, float], None]] = {
    "person": draw_person,
    "dog": draw_dog,
    "cat": draw_cat,
    "robot": draw_robot,
    "backpack": draw_backpack,
    "mug": draw_mug,
}
"""class noun -> draw(canvas, identity, mood), mood in [0, 1] being the expression of the moment."""
