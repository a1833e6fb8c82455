"""Controls: the same attackers where nothing protects, so that "did not learn" means something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unlikeness.subjects import Subject
from unlikeness.verify.attackers import PAPER, Attacker
from unlikeness.verify.evaluator import Evaluator
from unlikeness.verify.headline import called
from unlikeness.verify.outcomes import RELEASED, Attacks, Target
from unlikeness.verify.protective import ProtectiveOutput
from unlikeness.verify.threat_model import ThreatModel, taught
from unlikeness.verify.verdict import Outcome, has_learnt

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Control", "UnprotectedSubject", "controls", "original_of", "originals", "toybox_subject"]

_INDIVIDUAL = 9015
"""The toybox's individual for controls: the untrained toybox draws none of any class that resembles it."""

_HELD_OUT, _OF_CLASS = 10, 24


@dataclass(frozen=True, eq=False)
class UnprotectedSubject:
    """A subject that the model should still learn.

    Attributes:
        held_out: [S, 3, H, W] to compare with; None: the pictures that are learnt.
        of_class: [C, 3, H, W] of other members of its class; None: generated.
    """

    name: str
    subject: Subject
    held_out: Tensor | None = None
    of_class: Tensor | None = None


@dataclass(frozen=True)
class Control:
    """Target of the controls: the subject on the original model, or an unprotected subject on this model.

    Attributes:
        name: `verdict.ORIGINAL`, or the unprotected subject's.
        label: of its cached parts; the attacker `paper` has this label itself.
        known: outcomes that are there already, by attacker.
    """

    name: str
    attacks: Attacks
    target: Target
    subject: Subject
    evaluator: Evaluator
    label: str
    output: ProtectiveOutput | None
    known: Mapping[str, Outcome]

    def before(self) -> Outcome:
        """Images before any attack, which may resemble the subject by chance."""
        subject = taught(self.subject, PAPER, threat=ThreatModel.of(self.attacks.base))
        label = f"{self.label}-{RELEASED.name}"
        return self.attacks.outcome(self.target, subject, RELEASED, self.evaluator, label, self.output)

    def outcome(self, attacker: Attacker) -> Outcome:
        """This attacker's outcome."""
        if attacker.name in self.known:
            return self.known[attacker.name]
        label = self.label if attacker == PAPER else f"{self.label}-{attacker.name}"
        return self.attacks.outcome(self.target, self.subject, attacker, self.evaluator, label, self.output)


def controls(
    control: Control | None, outcomes: Sequence[Outcome], attacks: Attacks
) -> tuple[dict[str, Outcome], Outcome | None]:
    """(by name, the control of each attacker that did not learn the subject; images before any attack)."""
    needed = [one.attacker for one in outcomes if not has_learnt(one)]
    if control is None or not needed:
        return {}, None
    on = f"on {called(control.name)}"
    attacks.report(
        f"{len(needed)} of {len(outcomes)} attackers did not learn the subject; they are repeated {on}: "
        f"{', '.join(one.name for one in needed)}"
    )
    before = attacks.attempt(f"before any attack, {on}", control.before)
    found = {}
    for attacker in needed:
        title = f"{attacker.name}, {on}"
        if title in attacks.failed:
            continue
        outcome = attacks.attempt(title, partial(control.outcome, attacker))
        if outcome is not None:
            found[attacker.name] = outcome
    return found, before


def originals(record: Mapping[str, Any]) -> set[str]:
    """Fingerprints of all models that the immunizations in this record started from or were held to."""
    runs = (record, *record.get("earlier", []))
    found = [run.get(name) for run in runs for name in ("model_fingerprint", "original_fingerprint")]
    return {digest for digest in found if isinstance(digest, str)}


def original_of(model: TextToImage, record: Mapping[str, Any]) -> TextToImage | None:
    """The shipped toybox, if an immunization in this record started from it; else None.

    Other originals are not looked for: a record is a stranger's text, and no path that it names is opened.
    """
    if not model.conditioner.nouns:
        return None
    from unlikeness.diffusion.fingerprint import fingerprint
    from unlikeness.diffusion.model import TextToImage

    known = originals(record)
    if not known:
        return None
    toybox = TextToImage.from_pretrained("toybox", device=str(model.device), dtype="float32")
    return toybox if fingerprint(toybox) in known else None


def toybox_subject(model: TextToImage, subject: Subject) -> UnprotectedSubject | None:
    """An individual of the subject's class in the toybox's world; None for other models.

    It has as many pictures as the subject, and real members of its class.
    """
    nouns = model.conditioner.nouns
    noun = subject.class_noun.lower().split()[-1]
    if noun not in nouns:
        return None
    from unlikeness.toybox.cast import class_pictures, member

    who = member(_INDIVIDUAL, noun)
    alike = Subject(who.subject(len(subject.images)).images, subject.class_noun, subject.identifier)
    of_class = class_pictures(noun, _OF_CLASS, _INDIVIDUAL)
    return UnprotectedSubject(f"{noun}-{_INDIVIDUAL} of the toybox", alike, who.held_out(_HELD_OUT), of_class)
