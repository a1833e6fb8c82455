"""What a verification found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure.similarity import Pairs, SubjectSimilarity
from unlikeness.verify.attackers import PAPER, Attacker
from unlikeness.verify.finding import WORKS, Finding, Kind, finding, overall
from unlikeness.verify.judge import Drawn, likeness
from unlikeness.verify.notice import Notice, Seen
from unlikeness.verify.quality import Quality

__all__ = ["ORIGINAL", "Fidelity", "Outcome", "Verdict", "Worst", "together"]

ORIGINAL = "the original"
"""What controls are called that attack the model before its immunization."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One attacker's result.

    settings: all of its method. prompt: the one that it trained with. s: at that prompt; elsewhere: at the
    same words in new contexts. losses: after each chunk, of the attacker that trains until they stop falling.
    seconds: of training, drawing and judging, when that was done. seen: the notice in its pictures, if one is
    looked for.
    """

    attacker: Attacker
    settings: Mapping[str, Any]
    prompt: str
    pictures_learnt: int
    s: SubjectSimilarity
    elsewhere: SubjectSimilarity | None
    losses: tuple[float, ...]
    seconds: float
    drawn: Drawn = field(repr=False)
    pairs: Pairs = field(repr=False)
    pairs_elsewhere: Pairs | None = field(repr=False)
    seen: Seen | None = None

    @property
    def worst(self) -> SubjectSimilarity:
        """The larger of both: what the attacker has got, wherever it shows."""
        if self.elsewhere is not None and _got(self.elsewhere) > _got(self.s):
            return self.elsewhere
        return self.s


@dataclass(frozen=True)
class Worst:
    """The headline: the largest s over attackers, and over the prompts that they were asked with."""

    attacker: str
    prompt: str
    s: SubjectSimilarity


@dataclass(frozen=True, eq=False)
class Fidelity:
    """An unprotected subject under the paper's attacker: what the model leaves to everybody else."""

    name: str
    class_noun: str
    held_out: bool
    outcome: Outcome
    original: Outcome | None

    @property
    def kept(self) -> float | None:
        """Share of the original's s; None without an original, or where that learnt nothing either."""
        if self.original is None or self.original.s.value < WORKS:
            return None
        return self.outcome.s.value / self.original.s.value


@dataclass(frozen=True, eq=False)
class Verdict:
    """One protected subject and all attackers.

    about: models, settings, encoder, what the figures stand on; JSON-able. references: [S, 3, H, W], of which
    `held_out` says whether no attacker had them. left_out: reasons by attacker. clean: the paper's attacker
    on the original model. notice: what was looked for, and released: the model before any attack, which is
    asked only then. controls: by attacker, what it gets where nothing protects, for those that did not learn
    the subject (`control`). control_of: what these attack, `ORIGINAL` or an unprotected subject's name; empty
    if there is neither. untaught: what that model draws before any attack, if there are controls. failed: by
    attacker or control, why it gave no outcome, which never means that it did not learn.
    """

    about: Mapping[str, Any]
    references: Tensor = field(repr=False)
    held_out: bool
    outcomes: tuple[Outcome, ...]
    left_out: Mapping[str, str]
    clean: Outcome | None = None
    others: tuple[Fidelity, ...] = ()
    quality: Quality | None = None
    notice: Notice | None = None
    released: Outcome | None = None
    controls: Mapping[str, Outcome] = field(default_factory=dict)
    control_of: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)
    untaught: Outcome | None = None

    def control(self, attacker: str) -> Outcome | None:
        """What this attacker gets where nothing protects; None if that was not tried."""
        if self.clean is not None and attacker == PAPER.name:
            return self.clean
        return self.controls.get(attacker)

    @property
    def findings(self) -> dict[str, Finding]:
        """What each attacker's outcome shows, by its name."""
        return {
            one.attacker.name: finding(one, self.control(one.attacker.name), self.untaught)
            for one in self.outcomes
        }

    @property
    def kind(self) -> Kind:
        """What all of them show together."""
        return overall(self.findings.values(), bool(self.failed))

    @property
    def conclusive(self) -> bool:
        """Whether each attacker has learnt the subject, or was strong enough to learn it unprotected."""
        return not self.failed and all(one.kind != "inconclusive" for one in self.findings.values())

    @property
    def worst(self) -> Worst:
        """The attacker who got furthest."""
        found = max(self.outcomes, key=lambda one: _got(one.worst))
        where = " in new contexts" if found.worst is not found.s else ""
        return Worst(found.attacker.name, f"{found.prompt}{where}", found.worst)

    @property
    def asked(self) -> tuple[tuple[str, Outcome], ...]:
        """All models that were asked for the subject, with titles: the attacked original, the released one,
        and what each attacker made of it."""
        found = [(one.attacker.name, one) for one in (self.released, *self.outcomes) if one is not None]
        if self.clean is not None:
            found.insert(0, (f"{self.clean.attacker.name}, on the original", self.clean))
        return tuple(found)

    @property
    def attack_works(self) -> bool | None:
        """Whether the paper's attacker learns the subject from the original; None without an original."""
        return None if self.clean is None else self.clean.s.value >= WORKS and self.clean.s.low > 0


def _got(s: SubjectSimilarity) -> float:
    """The value to compare by: what is no number is behind all that are."""
    return s.value if math.isfinite(s.value) else -math.inf


def together(verdicts: Sequence[Verdict], *, seed: int = 0) -> dict[str, SubjectSimilarity]:
    """s by attacker at the training prompt, the mean over subjects; intervals redraw these and pictures.

    "clean" is the paper's attacker on the original. UsageError if the verdicts' attackers differ.
    """
    rows: dict[str, list[Pairs]] = {}
    for verdict in verdicts:
        for one in verdict.outcomes:
            rows.setdefault(one.attacker.name, []).append(one.pairs)
        if verdict.clean is not None:
            rows.setdefault("clean", []).append(verdict.clean.pairs)
    uneven = [name for name, pairs in rows.items() if len(pairs) != len(verdicts)]
    if uneven or not rows:
        raise UsageError(f"not every subject was attacked by all: {', '.join(uneven) or 'there is none'}")
    return {name: likeness(pairs, seed=seed) for name, pairs in rows.items()}
