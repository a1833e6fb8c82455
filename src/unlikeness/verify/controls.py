"""Controls: the same attackers where nothing protects, so that "did not learn" can mean something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from unlikeness.errors import NotFiniteError
from unlikeness.subjects import Subject
from unlikeness.verify.attackers import PAPER, Attacker
from unlikeness.verify.finding import has_learnt
from unlikeness.verify.headline import called
from unlikeness.verify.judge import Yardstick
from unlikeness.verify.notice import Notice
from unlikeness.verify.outcomes import RELEASED, Attacks, Target
from unlikeness.verify.pools import Pools
from unlikeness.verify.teaching import taught
from unlikeness.verify.verdict import Outcome

__all__ = ["Trials", "Unprotected", "controls"]


@dataclass(frozen=True)
class Trials:
    """Attacks that may fail while the others go on. failed: why, by title."""

    tell: Callable[[str], None]
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, title: str, attack: Callable[[], Outcome]) -> Outcome | None:
        """The outcome; None if the training diverged, or what it drew is no picture."""
        try:
            return attack()
        except NotFiniteError as error:
            self.failed[title] = str(error)
            self.tell(f"{title}: failed, {error}")
            return None


@dataclass(frozen=True)
class Unprotected:
    """What controls attack: the subject on the original model, or an unprotected subject on this model.

    name: `verdict.ORIGINAL`, or the unprotected subject's. label: of its kept parts; the paper's attacker has
    this label itself. known: outcomes that are there already, by attacker.
    """

    name: str
    attacks: Attacks
    target: Target
    subject: Subject
    stick: Yardstick
    label: str
    notice: Notice | None
    known: Mapping[str, Outcome]

    def title(self, attacker: Attacker) -> str:
        return f"{attacker.name}, on {called(self.name)}"

    def untaught(self) -> Outcome:
        """What is drawn there before any attack, which may happen to be like the subject."""
        subject = taught(self.subject, PAPER, pools=Pools.of(self.attacks.base))
        label = f"{self.label}-{RELEASED.name}"
        return self.attacks.released(self.target, subject, self.stick, self.notice, label)

    def outcome(self, attacker: Attacker) -> Outcome:
        """What this attacker gets there."""
        if attacker.name in self.known:
            return self.known[attacker.name]
        label = self.label if attacker == PAPER else f"{self.label}-{attacker.name}"
        return self.attacks.outcome(self.target, self.subject, attacker, self.stick, label, self.notice)


def controls(
    unprotected: Unprotected | None, outcomes: Sequence[Outcome], trials: Trials
) -> tuple[dict[str, Outcome], Outcome | None]:
    """By name, what each attacker that did not learn the subject gets where nothing protects; and what is
    drawn there before any attack. Nothing where none is needed."""
    needed = [one.attacker for one in outcomes if not has_learnt(one)]
    if unprotected is None or not needed:
        return {}, None
    trials.tell(
        f"{len(needed)} of {len(outcomes)} attackers did not learn the subject; whether they could have is "
        f"tried on {called(unprotected.name)}: {', '.join(one.name for one in needed)}"
    )
    before = trials.run(f"before any attack, on {called(unprotected.name)}", unprotected.untaught)
    found = {}
    for attacker in needed:
        title = unprotected.title(attacker)
        if title in trials.failed:
            continue
        outcome = trials.run(title, partial(unprotected.outcome, attacker))
        if outcome is not None:
            found[attacker.name] = outcome
    return found, before
