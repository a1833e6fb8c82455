"""What one attacker's figure shows, beside what the same attacker gets where nothing protects: its control.

A low s alone shows nothing: an attacker that is too weak gets as little out of an unprotected model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from unlikeness.measure.similarity import SubjectSimilarity
    from unlikeness.verify.verdict import Outcome

__all__ = ["FEWEST", "REFUSED", "WORKS", "Finding", "Kind", "finding", "has_learnt", "overall"]

WORKS = 0.3
"""s from which an attacker has learnt the subject."""

REFUSED = 0.15
"""s up to which the whole interval must lie for the subject to count as protected."""

FEWEST = 4
"""Pictures from which an interval says something."""

Kind = Literal["learnt", "little", "protected", "inconclusive"]


@dataclass(frozen=True)
class Finding:
    """kind: "learnt": s is at least `WORKS`, whatever the control. "protected": the interval of s lies below
    `REFUSED`, and the control was learnt. "little": below `WORKS`, and the control was learnt.
    "inconclusive": none of these. why: of what is inconclusive: "weak": the control was not learnt either, or
    is no more than its model draws before any attack. "unclear": the interval of s reaches `WORKS` or that of
    the control, or there are fewer than `FEWEST` pictures. "alone": there is no control. "failed": s is no
    finite number.
    """

    kind: Kind
    why: Literal["", "unclear", "weak", "alone", "failed"] = ""


def finding(of: Outcome, control: Outcome | None, before: Outcome | None = None) -> Finding:
    """What one attacker's outcome shows. Both prompts count: the training prompt, and it in new contexts.

    before: what the control's model draws before any attack, which may happen to be like the subject.
    """
    if has_learnt(of):
        return Finding("learnt")
    if not all(map(_finite, _asked(of))):
        return Finding("inconclusive", "failed")
    if control is None:
        return Finding("inconclusive", "alone")
    most = max(s.high for s in _asked(of))
    anyway = max([0.0, *(s.high if _finite(s) else math.inf for s in _asked(before))])
    lows = [s.low for s in _asked(control) if _learnt(s) and s.low > anyway]
    if not lows:
        return Finding("inconclusive", "weak")
    if of.s.n_generated < FEWEST or most >= min(WORKS, max(lows)):
        return Finding("inconclusive", "unclear")
    return Finding("protected" if most <= REFUSED else "little")


def has_learnt(of: Outcome) -> bool:
    """Whether an attacker has learnt the subject, which no control can change."""
    return any(s.value >= WORKS for s in _asked(of))


def overall(findings: Iterable[Finding], failed: bool) -> Kind:
    """The verdict of all attackers. failed: whether one of them, or a control, gave no outcome at all.

    One that learnt the subject decides it. Else all must have been strong enough, or it is inconclusive.
    """
    kinds = {one.kind for one in findings}
    if "learnt" in kinds:
        return "learnt"
    if failed or not kinds or "inconclusive" in kinds:
        return "inconclusive"
    return "little" if "little" in kinds else "protected"


def _asked(of: Outcome | None) -> list[SubjectSimilarity]:
    return [] if of is None else [s for s in (of.s, of.elsewhere) if s is not None]


def _learnt(s: SubjectSimilarity) -> bool:
    return _finite(s) and s.value >= WORKS and s.n_generated >= FEWEST


def _finite(s: SubjectSimilarity) -> bool:
    return math.isfinite(s.value) and math.isfinite(s.low) and math.isfinite(s.high)
