"""Sentences of the pages. The figures choose them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from unlikeness.html import Note

__all__ = ["count_word", "how", "learnt", "verdict"]

S = Mapping[str, float]
"""The similarity s of one training: its value, and low and high of its interval."""

LEARNT = 0.3
"""s from which the attacker counts as having learnt the subject."""
MOST, PART = 0.5, 0.85
"""Shares of the clean s up to which a copy has lost most, or part, of the similarity."""


def learnt(clean: S, before: S | None = None) -> bool:
    """Whether the attacker learnt the subject from untouched pictures.

    before: s before any training, which is above 0 if the class happens to look like the subject.
    """
    return clean["value"] >= LEARNT and clean["low"] > max(0.0, before["high"] if before else 0.0)


def verdict(clean: S, protected: S, noise: S | None = None, before: S | None = None) -> Note:
    """What this run shows about the protection. Overlapping intervals count as no difference."""
    acts = [act for act in (clean, protected, noise, before) if act is not None]
    if not all(math.isfinite(act[name]) for act in acts for name in ("value", "low", "high")):
        return Note(
            "open",
            "This run shows nothing about the protection",
            "A similarity is no finite number, so a training or a generation has failed "
            f"({', '.join(_s(act) for act in acts)}).",
        )
    if not learnt(clean, before):
        return Note(
            "open",
            "This run shows nothing about the protection",
            f"The attacker did not get far even with the untouched pictures ({_s(clean)}), so there is "
            "nothing that the protection could have prevented.",
        )
    both = f"The similarity of the copies went from {_s(clean)} to {_s(protected)}."
    if protected["low"] > clean["high"]:
        return Note(
            "bad", "Here it made things worse", f"{both} The attacker got more out of the protected pictures."
        )
    share = max(protected["value"], 0.0) / clean["value"]
    if protected["high"] >= clean["low"]:
        return Note(
            "bad",
            "The protection did not hold here",
            f"{both} The attacker got about as much out of the protected pictures: a difference, if there is "
            "one, is within the chance of so few pictures.",
        )
    if share > PART:
        return Note(
            "bad",
            "The protection did not hold here",
            f"{both} The attacker got a little less out of the protected pictures. Chance does not explain "
            "the difference, but it is too small to matter.",
        )
    against = "" if noise is None else " " + _against_noise(protected, noise)
    beaten = noise is None or protected["high"] < noise["low"]
    if share <= MOST:
        title = (
            "The copy lost most of the similarity"
            if beaten
            else "The copy lost similarity, but to plain noise as well"
        )
        return Note("good" if beaten else "mixed", title, both + against)
    return Note(
        "mixed",
        "The copy lost part of the similarity",
        f"{both} Viewers will still recognise the subject in some pictures.{against}",
    )


def _against_noise(protected: S, noise: S) -> str:
    """The control: would any change of this size have done?"""
    if protected["high"] < noise["low"]:
        return f"Plain noise of the same strength left {_s(noise)}."
    return (
        f"But plain noise of the same strength left {_s(noise)}: this run does not show that the computed "
        "change does better than that."
    )


def _s(s: S) -> str:
    return f"s = {s['value']:.2f} (between {s['low']:.2f} and {s['high']:.2f})"


def how(method: str) -> str:
    """What a protection does to a picture, without terms of the field."""
    computed = (
        "The changes look like faint noise but are not random: they are computed with the image generator "
        "itself, step by step, "
    )
    return {
        "rid": "The changes look like a faint, fine pattern: a small network computes them at once. It was "
        "trained beforehand against an image generator.",
        "advdm": computed + "so that it finds the picture as hard as possible to learn from.",
        "photoguard": computed + "until the picture looks like a plain grey one to it.",
        "noise": "Here the changes are plain random noise: the control, and no protection.",
    }.get(method, f"The method {method} decides how.")


def count_word(n: int) -> str:
    """3 -> "three"."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[n] if n < len(words) else str(n)
