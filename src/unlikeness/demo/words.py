"""What a page says of the figures, whatever they are: words are chosen by them and never the other way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Verdict", "count_word", "duration", "how", "learnt", "verdict"]

S = Mapping[str, float]
"""s of one act: value, and low and high of its interval."""

LEARNT = 0.3
"""s from which we say that the copier has learnt the subject at all."""
MOST, PART = 0.5, 0.85
"""Share of the clean s that is left, up to which a copy has lost most, or part, of the likeness."""


@dataclass(frozen=True)
class Verdict:
    """kind: its colour on the page. title: a few words. text: whole sentences."""

    kind: Literal["good", "mixed", "bad", "open"]
    title: str
    text: str


def learnt(clean: S, before: S | None = None) -> bool:
    """Whether the attacker learnt the subject from untouched pictures. before: what the model drew before any
    training, which may happen to be like the subject."""
    return clean["value"] >= LEARNT and clean["low"] > max(0.0, before["high"] if before else 0.0)


def verdict(clean: S, protected: S, noise: S | None = None, before: S | None = None) -> Verdict:
    """What this run shows about the protection. Intervals that overlap are no difference."""
    acts = [act for act in (clean, protected, noise, before) if act is not None]
    if not all(math.isfinite(act[name]) for act in acts for name in ("value", "low", "high")):
        return Verdict(
            "open",
            "This run shows nothing about the protection",
            "A likeness is no finite number, so that a training or a drawing has failed "
            f"({', '.join(_s(act) for act in acts)}).",
        )
    if not learnt(clean, before):
        return Verdict(
            "open",
            "This run shows nothing about the protection",
            f"The copier did not get far even with the untouched pictures ({_s(clean)}), so there is nothing "
            "that the protection could have prevented.",
        )
    both = f"The likeness of the copies went from {_s(clean)} to {_s(protected)}."
    if protected["low"] > clean["high"]:
        return Verdict(
            "bad", "Here it made things worse", f"{both} The copier got more out of the protected pictures."
        )
    share = max(protected["value"], 0.0) / clean["value"]
    if protected["high"] >= clean["low"]:
        return Verdict(
            "bad",
            "The protection did not hold here",
            f"{both} The copier got about as much out of the protected pictures: the difference, if there is "
            "one, is within the chance of a few drawings.",
        )
    if share > PART:
        return Verdict(
            "bad",
            "The protection did not hold here",
            f"{both} The copier got a little less out of the protected pictures, more than chance explains, "
            "but not so much less that it would matter.",
        )
    against = "" if noise is None else " " + _against_noise(protected, noise)
    beaten = noise is None or protected["high"] < noise["low"]
    if share <= MOST:
        title = (
            "The copy lost most of the likeness"
            if beaten
            else "The copy lost likeness, but so it did to noise"
        )
        return Verdict("good" if beaten else "mixed", title, both + against)
    return Verdict(
        "mixed",
        "The copy lost part of the likeness",
        f"{both} Somebody who looks will still recognise the subject in some of them.{against}",
    )


def _against_noise(protected: S, noise: S) -> str:
    """The control: would any change of this size have done?"""
    if protected["high"] < noise["low"]:
        return f"Plain noise of the same strength, which aims at nothing, left {_s(noise)}."
    return (
        f"But plain noise of the same strength, which aims at nothing, left {_s(noise)}: this run does not "
        "show that the computed change does better than that."
    )


def _s(s: S) -> str:
    return f"s = {s['value']:.2f} (between {s['low']:.2f} and {s['high']:.2f})"


def how(method: str) -> str:
    """What a protection does to a picture, for everybody."""
    computed = (
        "The changes look like faint noise but are not random: they are computed with the drawing program "
        "itself, step by step, "
    )
    return {
        "rid": "The changes look like a faint, fine pattern: a small network computes them at once. It was "
        "trained beforehand against a drawing program.",
        "advdm": computed + "in the direction in which it finds the picture hardest to learn from.",
        "photoguard": computed + "until the picture looks to it like a plain grey one.",
        "noise": "Here the changes are plain random noise: the control, and no protection.",
    }.get(method, f"The method {method} decides how.")


def count_word(n: int) -> str:
    """3 -> "three"."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[n] if n < len(words) else str(n)


def duration(seconds: float) -> str:
    """85 s -> "a minute"; 300 s -> "5 minutes"."""
    if seconds < 50:
        return "less than a minute"
    minutes = round(seconds / 60)
    if minutes < 90:
        return "a minute" if minutes <= 1 else f"{minutes} minutes"
    return f"{seconds / 3600:.1f} hours"
