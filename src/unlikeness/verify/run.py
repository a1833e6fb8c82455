"""Attack a model with all attackers, and judge what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unlikeness.cache import Cache
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.measure.similarity import Embedder
from unlikeness.progress import Progress
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import Subject, as_text
from unlikeness.verify.apart import check_apart
from unlikeness.verify.attack import Priors
from unlikeness.verify.attackers import EVERY, PAPER, Attacker, personalizer
from unlikeness.verify.controls import Trials, Unprotected, controls
from unlikeness.verify.judge import Yardstick
from unlikeness.verify.notice import Notice
from unlikeness.verify.outcomes import Attacks, Target
from unlikeness.verify.pools import Pools
from unlikeness.verify.settings import CONTEXTS, Overrides, VerifySettings
from unlikeness.verify.teaching import taught
from unlikeness.verify.verdict import ORIGINAL, Fidelity, Outcome, Verdict

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Other", "verify_subject"]


@dataclass(frozen=True, eq=False)
class Other:
    """An unprotected subject, whose personalization should still work.

    held_out: [S, 3, H, W] to compare with; None: the pictures that are learnt. of_class: [C, 3, H, W] of
    other members of its class; None: drawn.
    """

    name: str
    subject: Subject
    held_out: Tensor | None = None
    of_class: Tensor | None = None


def verify_subject(
    model: TextToImage,
    subject: Subject,
    held_out: Tensor | None = None,
    *,
    embedder: Embedder,
    attackers: Sequence[Attacker] = EVERY,
    base: VerifySettings | None = None,
    overrides: Overrides | None = None,
    contexts: Sequence[str] = CONTEXTS,
    of_class: Tensor | None = None,
    original: TextToImage | None = None,
    unseen: Tensor | None = None,
    unrelated: Subject | None = None,
    others: Sequence[Other] = (),
    control: Other | None = None,
    notice: Notice | None = None,
    measure_quality: bool = True,
    priors: Priors | None = None,
    original_priors: Priors | None = None,
    work: Path | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Attack `model` with every attacker, and measure how much of `subject` each of them gets.

    An attacker that did not learn the subject is tried where nothing protects too: on `original`, else on an
    unprotected subject. What it does not learn there either shows nothing. If a training diverges, that
    attacker has failed, and the others go on.

    Args:
        held_out: pictures of the subject [S, 3, H, W] that no attacker has, which is checked (`apart`). None:
            the protected ones themselves are compared with, which measures memory too, and the verdict says
            so.
        embedder: tells the subject from its class (`judge.AtResolution` for a named encoder).
        attackers, base, overrides: who, their common settings, and settings of single ones by name.
        contexts: words behind the training prompt; () asks at the training prompt alone.
        of_class: [C, 3, H, W], other members of the class; None: drawn by `original`, else by `model`.
        original: the model before its immunization, for the controls and the drift.
        unseen, unrelated: what single attackers need (`attack.run_attacker`); unseen: [N, 3, H, W].
        others: unprotected subjects, personalized by the paper's attacker.
        control: without `original`, the unprotected subject of the controls; None: one of `others`, of the
            subject's class if there is one.
        notice: looked for in what every attacker draws of the subject, and in what the model itself draws of
            it; and where it should not be, in what is drawn of the others and of the class.
        measure_quality: with `original`: draw the class and measure the drift.
        priors, original_priors: class pictures to share between subjects.
        work: a folder in which every finished part is kept, so that an interrupted run goes on.
        tell: called with a line after each attacker.

    Raises:
        UsageError: a wrong setting; too few pictures; held-out pictures that an attacker has; an encoder that
            does not tell the subject from its class; a prompt that the model cannot read to its end. All
            before the first attack.
        UnlikenessError: every attacker failed, or the training on one of `others`; a kept part is damaged.
    """
    base = base or VerifySettings()
    _check_apart(subject, held_out, unseen, unrelated, others)
    pools = Pools.of(base)
    settings = {one.name: personalizer(one, base, overrides).settings for one in attackers}
    without = {name for name, s in settings.items() if not (s.class_images and s.prior_weight)}
    chosen, left_out = _possible(attackers, subject, unseen, pools, without if unrelated is None else ())
    aside = None if original is not None else control or _of_class(others, subject.class_noun)
    learnt = [taught(subject, one, unseen, pools) for one in chosen]
    learnt += [taught(other.subject, PAPER, pools=pools) for other in others]
    if aside is not None:
        learnt += [taught(aside.subject, one, aside.subject.images, pools) for one in chosen]
    for one in learnt:
        for place in contexts or ("",):
            prompt = as_text("prompt", f"{one.instance_prompt} {place}")
            if reason := model.conditioner.too_long(prompt):
                raise UsageError(reason)
    attacks = Attacks(
        base, overrides or {}, tuple(contexts), unseen, unrelated, Cache(work), tell or _silent, progress
    )
    target = Target(model, priors or Priors(model))
    before = None if original is None else Target(original, original_priors or Priors(original))
    draws = before or target

    def yardstick(about: Subject, references: Tensor | None, given: Tensor | None) -> Yardstick:
        if given is None:
            given = attacks.class_pictures(draws, about.class_prompt)
        held = references is not None
        stick = Yardstick(embedder, references if references is not None else about.images, given, held)
        stick.check()
        return stick

    stick = yardstick(subject, held_out, of_class)
    sticks = [yardstick(other.subject, other.held_out, other.of_class) for other in others]
    beside = next((its for other, its in zip(others, sticks, strict=True) if other is aside), None)
    if aside is not None and beside is None:
        beside = yardstick(aside.subject, aside.held_out, aside.of_class)
    trials = Trials(attacks.tell)
    clean = None
    if before is not None:
        title = f"{PAPER.name}, on {ORIGINAL}"
        clean = trials.run(title, partial(attacks.outcome, before, subject, PAPER, stick, "original", notice))
    itself = taught(subject, PAPER, pools=pools)
    released = None if notice is None else attacks.released(target, itself, stick, notice)
    tried = [
        trials.run(one.name, partial(attacks.outcome, target, subject, one, stick, one.name, notice))
        for one in chosen
    ]
    outcomes = tuple(one for one in tried if one is not None)
    if not outcomes:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in trials.failed.items())
        raise UnlikenessError(f"every attacker failed ({reasons})")
    fidelities = []
    for other, its in zip(others, sticks, strict=True):
        found: list[Outcome | None] = [
            None if one is None
            else attacks.outcome(
                one, other.subject, PAPER, its, f"{where}-other-{other.name}",
                None if notice is None else notice.of(other.subject.class_noun),
            )
            for one, where in ((target, "model"), (before, "original"))
        ]  # fmt: skip
        assert found[0] is not None
        fidelities.append(Fidelity(other.name, other.subject.class_noun, its.held_out, found[0], found[1]))
    unprotected = None
    if before is not None:
        known = {} if clean is None else {PAPER.name: clean}
        unprotected = Unprotected(ORIGINAL, attacks, before, subject, stick, "original", notice, known)
    elif aside is not None and beside is not None:
        there = [one for other, one in zip(others, fidelities, strict=True) if other is aside]
        known = {PAPER.name: there[0].outcome} if there else {}
        unprotected = Unprotected(
            aside.name, replace(attacks, unseen=aside.subject.images), target, aside.subject,
            beside, f"model-other-{aside.name}",
            None if notice is None else notice.of(aside.subject.class_noun), known,
        )  # fmt: skip
    compared, untaught = controls(unprotected, outcomes, trials)
    quality = None
    if before is not None and measure_quality:
        quality = attacks.quality(target, before, subject.class_prompt, embedder, of_class, notice)
    about: dict[str, Any] = {
        "class_noun": subject.class_noun,
        "identifier": subject.identifier,
        "pictures": len(subject.images),
        "pictures_sha256": subject.digest,
        "references": len(stick.references),
        "references_sha256": pixel_digest(stick.references),
        "held_out": stick.held_out,
        "of_class": len(stick.of_class),
        "of_class_from": "given" if of_class is not None else "original" if before is not None else "model",
        "control_held_out": None if beside is None else beside.held_out,
        "model": target.fingerprint,
        "original": None if before is None else before.fingerprint,
        "encoder": attacks.name_of(embedder),
        "contexts": list(contexts),
        "settings": asdict(base),
        "overrides": {name: dict(values) for name, values in (overrides or {}).items()},
    }
    return Verdict(
        about, stick.references, stick.held_out, outcomes, left_out, clean, tuple(fidelities), quality,
        notice, released, compared, "" if unprotected is None else unprotected.name, trials.failed, untaught,
    )  # fmt: skip


def _of_class(others: Sequence[Other], class_noun: str) -> Other | None:
    """The first of this class, else the first; None if there is none."""
    alike = [other for other in others if other.subject.class_noun == class_noun]
    return next(iter([*alike, *others]), None)


def _check_apart(
    subject: Subject,
    held_out: Tensor | None,
    unseen: Tensor | None,
    unrelated: Subject | None,
    others: Sequence[Other],
) -> None:
    """UsageError if pictures are held out from nobody, or unseen ones are the protected ones."""
    protected, compared = "the protected pictures (--images)", "held-out pictures (--held-out)"
    check_apart(compared, held_out, protected, subject.images)
    check_apart(compared, held_out, "those of --unseen", unseen)
    check_apart(compared, held_out, "those of --unrelated", None if unrelated is None else unrelated.images)
    check_apart("pictures of --unseen", unseen, protected, subject.images)
    for other in others:
        check_apart(
            f"held-out pictures of {other.name} (--unprotected-held-out)", other.held_out,
            "its pictures that are learnt (--unprotected)", other.subject.images,
        )  # fmt: skip


def _possible(
    wanted: Sequence[Attacker],
    subject: Subject,
    unseen: Tensor | None,
    pools: Pools,
    nothing_else: Collection[str],
) -> tuple[tuple[Attacker, ...], dict[str, str]]:
    """Attackers that have what they need, and why the others are left out. UsageError if none is left.

    nothing_else: names of those who have neither unrelated pictures nor class pictures.
    """
    left_out = {}
    for one in wanted:
        if one.learns_from == "unseen" and unseen is None:
            left_out[one.name] = (
                "needs pictures of the subject beside the protected ones, which were not given (--unseen)"
            )
        elif one.tuned_before and one.name in nothing_else:
            left_out[one.name] = (
                "needs pictures of something else, which were not given (--unrelated), or class pictures "
                "(class_images and prior_weight)"
            )
        elif reason := pools.missing(one, subject):
            left_out[one.name] = reason
    chosen = tuple(one for one in wanted if one.name not in left_out)
    if not chosen:
        reasons = "; ".join(f"{name} {reason}" for name, reason in left_out.items())
        raise UsageError(f"no attacker is left; name others ({reasons})")
    return chosen, left_out


def _silent(line: str) -> None:
    return
