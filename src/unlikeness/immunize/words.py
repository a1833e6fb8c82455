"""Settings that are words: behaviours, identifiers and prompts, one or several in a text."""

from __future__ import annotations

from unlikeness.errors import UsageError

__all__ = ["BEHAVIOURS", "IN_PLACES", "check_words", "in_turn", "parts", "several", "words"]

BEHAVIOURS = ("pattern", "erasure", "target")

_PLACES = ("in the snow", "on the beach", "in the forest", "in the city", "at night", "on a table")

IN_PLACES = "|".join(f"a photo of {{}} {place}" for place in _PLACES)
"""Templates of prompts for the subject elsewhere than in the attacker's pictures, as settings hold them."""


def several(words: str) -> list[str]:
    """The words of a setting that holds one or more, separated by commas, for the subjects in turn."""
    return [word.strip() for word in words.split(",")]


def check_words(behaviour: str, target_noun: str, *, refusal: bool = False) -> None:
    """UsageError for an unknown behaviour, or a target without a noun. refusal: "class" is one, too."""
    kinds, none = several(behaviour), "class or " if refusal else ""
    for kind in kinds:
        if kind not in BEHAVIOURS and not (refusal and kind == "class"):
            raise UsageError(
                f"behaviour {kind!r} is unknown; it must be {none}one of {', '.join(BEHAVIOURS)}"
            )
    if "target" in kinds and not target_noun:
        raise UsageError("behaviour target needs target_noun, the class that is to be drawn instead")


def in_turn(words: str, index: int) -> str:
    """The word for the subject of this index."""
    every = several(words)
    return every[index % len(every)]


def words(text: str) -> list[str]:
    """The identifiers of a setting that holds several, separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def parts(text: str) -> list[str]:
    """The templates of a setting that holds several, separated by |."""
    return [part.strip() for part in text.split("|") if part.strip()]
