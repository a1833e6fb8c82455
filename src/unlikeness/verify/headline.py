"""What a verdict comes to in a title and a few sentences: of the page, and of the command's last line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unlikeness.verify.attackers import EVERY
from unlikeness.verify.finding import FEWEST, WORKS, Kind
from unlikeness.verify.verdict import ORIGINAL, Verdict

__all__ = ["Headline", "called", "headline"]

_COLOURS: dict[Kind, Literal["good", "mixed", "bad", "open"]] = {
    "learnt": "bad",
    "little": "mixed",
    "protected": "good",
    "inconclusive": "open",
}


@dataclass(frozen=True)
class Headline:
    """colour: the page's: good is green, open grey. title: a few words. text: whole sentences, or empty."""

    colour: Literal["good", "mixed", "bad", "open"]
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.title}. {self.text}".strip()


def headline(verdict: Verdict) -> Headline:
    """The title names the outcome; the text what it is compared with, and what to do where that fails."""
    kind, worst = verdict.kind, verdict.worst
    found = f"s {worst.s.value:.2f}, {worst.s.low:.2f} to {worst.s.high:.2f}"
    open_ones = _inconclusive(verdict)
    if kind == "learnt":
        title = f"The attacker {worst.attacker} learnt the subject ({found})"
    elif kind == "protected":
        title = f"No attacker learnt the subject (at most {found})"
    elif kind == "little":
        title = f"The worst attacker learnt little of the subject ({found})"
    else:
        title = f"Inconclusive: {_reason(verdict)}"
    sentences = open_ones if kind in ("learnt", "inconclusive") else [_compared(verdict)]
    tried = {one.attacker.name for one in verdict.outcomes}
    if kind in ("little", "protected") and (others := [a.name for a in EVERY if a.name not in tried]):
        sentences.append(f"Not tried: {', '.join(others)}.")
    return Headline(_COLOURS[kind], title, " ".join(sentences))


def called(control_of: str) -> str:
    """What the controls attack, in words."""
    return control_of if control_of == ORIGINAL else f"the unprotected subject {control_of}"


def _learnt(control_of: str) -> str:
    """What an attacker would have to learn in a control, in words."""
    return f"{'the subject from ' if control_of == ORIGINAL else ''}{called(control_of)}"


def _names(verdict: Verdict, why: str) -> list[str]:
    return [name for name, one in verdict.findings.items() if one.why == why]


def _reason(verdict: Verdict) -> str:
    """Behind "Inconclusive: ", the gravest of the reasons."""
    weak, alone, unclear = (_names(verdict, why) for why in ("weak", "alone", "unclear"))
    if weak:
        return "these attackers are too weak" if len(weak) > 1 else f"the attacker {weak[0]} is too weak"
    if alone:
        return "the attackers were not compared with any that learn an unprotected subject"
    if unclear:
        return "there are too few pictures to tell"
    return "an attack failed"


def _inconclusive(verdict: Verdict) -> list[str]:
    """A sentence for each reason for which attackers show nothing."""
    sentences = []
    if weak := _names(verdict, "weak"):
        best = max(one.worst.value for name in weak if (one := verdict.control(name)) is not None)
        own = "" if verdict.control_of == ORIGINAL else " Or the model learns nobody: --original would tell."
        sentences.append(
            f"{_listed(weak)} did not clearly learn {_learnt(verdict.control_of)} either "
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
    sentences += [f"{name} failed: {reason}." for name, reason in failed.items()]
    return sentences


def _compared(verdict: Verdict) -> str:
    """What the same attackers got where nothing protects."""
    values = [one.worst.value for name in verdict.findings if (one := verdict.control(name)) is not None]
    between = f"{min(values):.2f}" + (f" to {max(values):.2f}" if len(values) > 1 else "")
    return f"The same attackers learn {_learnt(verdict.control_of)} (s {between})."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
