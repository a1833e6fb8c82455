"""The identity space: what makes one subject of a class a different individual from another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unlikeness.toybox.world.canvas import Colour

CLASS_NOUNS = ("person", "dog", "cat", "robot", "backpack", "mug")

COLOURS: dict[str, Colour] = {
    "red": (208, 48, 44),
    "orange": (236, 132, 38),
    "yellow": (240, 204, 60),
    "green": (66, 150, 72),
    "turquoise": (58, 176, 168),
    "blue": (52, 96, 190),
    "purple": (126, 70, 164),
    "pink": (232, 134, 172),
    "brown": (126, 82, 50),
    "black": (44, 42, 48),
    "white": (238, 236, 228),
    "grey": (140, 142, 148),
}
FUR = ("brown", "black", "white", "grey", "orange", "yellow")
HAIR: dict[str, Colour] = {
    "black": (40, 34, 36),
    "brown": (104, 66, 42),
    "blond": (226, 188, 104),
    "red": (178, 76, 38),
    "grey": (168, 168, 172),
    "blue": (62, 92, 176),
    "pink": (222, 110, 158),
}
SKIN: tuple[Colour, ...] = (
    (250, 220, 196), (236, 190, 154), (210, 156, 116), (168, 114, 78), (122, 80, 56), (84, 56, 44),
)  # fmt: skip
PATTERNS = ("plain", "stripes", "bands", "spots", "checks")


@dataclass(frozen=True)
class Identity:
    """One individual. Colours are sRGB, `shape` holds proportions in [0, 1], `features` counts parts.

    `colour_name` and `pattern` are what a caption may say of it.
    """

    class_noun: str
    colour_name: str
    colour: Colour
    second: Colour
    accent: Colour
    pattern: str
    pitch: float
    shape: tuple[float, ...]
    features: tuple[int, ...]


def _vary(rng: np.random.Generator, colour: Colour, by: int = 12) -> Colour:
    r, g, b = (int(np.clip(c + rng.integers(-by, by + 1), 0, 255)) for c in colour)
    return (r, g, b)


def sample_identity(rng: np.random.Generator, class_noun: str) -> Identity:
    """Draw an individual of a class. The same generator state gives the same individual."""
    if class_noun not in CLASS_NOUNS:
        raise ValueError(f"unknown class noun {class_noun!r}; the toybox knows {', '.join(CLASS_NOUNS)}")
    if class_noun == "person":
        name = str(rng.choice(list(HAIR)))
        colour = HAIR[name]
        second, accent = (COLOURS[str(c)] for c in rng.choice(list(COLOURS), 2, replace=False))
    else:
        names = FUR if class_noun in ("dog", "cat") and rng.random() < 0.7 else tuple(COLOURS)
        name = str(rng.choice(names))
        others = [c for c in COLOURS if c != name]
        colour = COLOURS[name]
        second, accent = (COLOURS[str(c)] for c in rng.choice(others, 2, replace=False))
    return Identity(
        class_noun=class_noun,
        colour_name=name,
        colour=_vary(rng, colour),
        second=_vary(rng, second),
        accent=_vary(rng, accent),
        pattern=str(rng.choice(PATTERNS)),
        pitch=float(rng.uniform(0.32, 0.46)),
        shape=tuple(float(v) for v in rng.random(6)),
        features=tuple(int(v) for v in rng.integers(0, 60, 6)),
    )
