"""A verdict as a title and a few sentences, for the page and for the command's last line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from unlikeness.html import Note
from unlikeness.verify.attackers import EVERY
from unlikeness.verify.verdict import FEWEST, ORIGINAL, WORKS, Kind, Verdict

__all__ = ["called", "headline"]

_COLOURS: dict[Kind, Literal["good", "mixed", "bad", "open"]] = {
    "learnt": "bad",
    "little": "mixed",
    "protected": "good",
    "inconclusive": "open",
}


def headline(verdict: Verdict) -> Note:
    """The title names the result; the text compares it with controls, or says how to get a result."""
    kind, worst = verdict.kind, verdict.worst
    found = f"s {worst.s.value:.2f}, {worst.s.low:.2f} to {worst.s.high:.2f}"
    if kind == "learnt":
        title = f"The attacker {worst.attacker} learnt the subject ({found})"
    elif kind == "protected":
        title = f"No attacker learnt the subject (at most {found})"
    elif kind == "little":
        title = f"The worst attacker learnt little of the subject ({found})"
    else:
        title = f"Inconclusive: {_reason(verdict)}"
    if kind in ("learnt", "inconclusive"):
        return Note(_COLOURS[kind], title, " ".join(_inconclusive(verdict)))
    tried = {one.attacker.name for one in verdict.outcomes}
    others = [one.name for one in EVERY if one.name not in tried]
    not_tried = f" Not tried: {', '.join(others)}." if others else ""
    return Note(_COLOURS[kind], title, _compared(verdict) + not_tried)


def called(control_of: str) -> str:
    """The target of the controls in words."""
    return control_of if control_of == ORIGINAL else f"the unprotected subject {control_of}"


def _to_learn(control_of: str) -> str:
    """What an attacker has to learn in a control, in words."""
    return f"{'the subject from ' if control_of == ORIGINAL else ''}{called(control_of)}"


def _names(verdict: Verdict, why: str) -> list[str]:
    return [name for name, one in verdict.findings.items() if one.why == why]


def _reason(verdict: Verdict) -> str:
    """The most serious reason for an inconclusive verdict."""
    weak, alone, unclear = (_names(verdict, why) for why in ("weak", "alone", "unclear"))
    if weak:
        return "these attackers are too weak" if len(weak) > 1 else f"the attacker {weak[0]} is too weak"
    if alone:
        return "the attackers were not compared with any that learn an unprotected subject"
    if unclear:
        return "there are too few pictures to tell"
    return "an attack failed"


def _inconclusive(verdict: Verdict) -> list[str]:
    """One or more sentences for each reason."""
    sentences = []
    if weak := _names(verdict, "weak"):
        best = max(one.worst.value for name in weak if (one := verdict.control(name)) is not None)
        own = ""
        if verdict.control_of != ORIGINAL:
            own = " Or nothing can be learnt from this model: find out with --original."
        sentences.append(
            f"{_listed(weak)} did not clearly learn {_to_learn(verdict.control_of)} either "
            f"(s up to {best:.2f}). "
            "Give more steps (--set steps=...) or a larger learning rate (--set learning_rate=..., "
            f"lora_learning_rate), or draw more pictures (--set pictures=...).{own}"
        )
    if alone := _names(verdict, "alone"):
        sentences.append(
            f"What {_listed(alone)} would learn without a protection is not known. Give the model before its "
            "immunization (--original) or unprotected subjects (--unprotected)."
        )
    if unclear := _names(verdict, "unclear"):
        sentences.append(
            f"The interval of {_listed(unclear)} reaches {WORKS:g} or that of the control, or there are "
            f"fewer than {FEWEST} pictures. Draw more (--set pictures=..., pictures_in_context), and compare "
            "with more of the subject's (--held-out)."
        )
    failed = dict.fromkeys(_names(verdict, "failed"), "no finite figure") | dict(verdict.failed)
    return sentences + [f"{name} failed: {reason}." for name, reason in failed.items()]


def _compared(verdict: Verdict) -> str:
    """What the same attackers learnt in their controls."""
    values = [one.worst.value for name in verdict.findings if (one := verdict.control(name)) is not None]
    between = f"{min(values):.2f}" + (f" to {max(values):.2f}" if len(values) > 1 else "")
    return f"The same attackers learn {_to_learn(verdict.control_of)} (s {between})."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
