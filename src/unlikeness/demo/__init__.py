"""`unlikeness demo`: the main job from end to end, told in one HTML page.

`story` plays it on the toybox, `telling` writes its page in words that `words` chooses by the figures;
`photographs` protects a visitor's own pictures and shows them. `page` has what both pages are made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up

if TYPE_CHECKING:
    from unlikeness.demo.photographs import protect_photographs
    from unlikeness.demo.settings import DemoSettings
    from unlikeness.demo.story import Judge, run

__all__ = ["DemoSettings", "Judge", "protect_photographs", "run"]

__getattr__ = looked_up(
    __name__,
    {
        "photographs": ("protect_photographs",),
        "settings": ("DemoSettings",),
        "story": (
            "Judge",
            "run",
        ),
    },
)
