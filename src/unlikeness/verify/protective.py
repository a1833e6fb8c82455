"""Protective outputs: requested by the user, recorded in the model, detected in images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UsageError
from unlikeness.immunize.outputs import KINDS, in_turn
from unlikeness.immunize.record import texts
from unlikeness.provenance import pixel_digest
from unlikeness.words import as_text, with_article

if TYPE_CHECKING:
    from torch import Tensor

    from unlikeness.measure.classifiers import Classifier
    from unlikeness.measure.intervals import Share
    from unlikeness.subjects import Subject
    from unlikeness.verify.evaluator import Generated

__all__ = [
    "NONE", "Detected", "ProtectiveOutput", "Recorded", "Requested", "pools", "recorded", "says_output",
]  # fmt: skip

NONE = "none"
"""`Requested.kind` that looks for nothing, whatever the record says."""


@dataclass(frozen=True)
class Detected:
    """Share of images with the output: at the training prompt, and in new contexts if there are any."""

    plain: Share
    elsewhere: Share | None

    def __str__(self) -> str:
        return f"{self.plain} / {'–' if self.elsewhere is None else self.elsewhere}"


@dataclass(frozen=True, eq=False)
class ProtectiveOutput:
    """The output to look for in images of one subject's attackers.

    Attributes:
        kind: pattern, erasure or target.
        class_noun: the subject's. target_noun: of a target.
        watermark: of a pattern, [3, h, w] in [0, 1].
        classifier: names class nouns, for an erasure or a target.
        recorded: whether the model's record names the output, rather than the user.
    """

    kind: str
    class_noun: str
    target_noun: str = ""
    watermark: Tensor | None = field(default=None, repr=False)
    classifier: Classifier | None = None
    recorded: bool = False

    def __str__(self) -> str:
        """In words: "target, a cat instead of the dog"."""
        return {
            "pattern": "pattern, a watermark in the lower right corner",
            "erasure": f"erasure, a picture without {with_article(self.class_noun)}",
            "target": f"target, {with_article(self.target_noun)} instead of the {self.class_noun}",
        }[self.kind]

    def of(self, class_noun: str) -> ProtectiveOutput | None:
        """The same watermark or target, for images of an unprotected subject of this class.

        None for a target that is the subject's own class, or the erasure of another class.
        """
        if class_noun != self.class_noun and (self.kind == "erasure" or class_noun == self.target_noun):
            return None
        return replace(self, class_noun=class_noun)

    def detect(self, generated: Generated) -> Detected:
        """The shares of images that show it."""
        from unlikeness.measure.intervals import share

        elsewhere = None if generated.elsewhere is None else share(self.shown(generated.elsewhere))
        return Detected(share(self.shown(generated.plain)), elsewhere)

    def shown(self, images: Tensor) -> Tensor:
        """[B] of bool: which images [B, 3, H, W], uint8, show it. UsageError as `measure.protective`."""
        from unlikeness.measure.protective import protective

        return protective(
            self.kind, images / 255, pattern=self.watermark, read=self.classifier,
            class_noun=self.class_noun, target_noun=self.target_noun,
        )  # fmt: skip

    def as_record(self) -> dict[str, Any]:
        """JSON-able, without the watermark's pixels."""
        return {
            "behaviour": self.kind,
            "target_noun": self.target_noun or None,
            "read_by": None if self.classifier is None else self.classifier.name,
            "from": "immunization.json" if self.recorded else "given",
        }


@dataclass(frozen=True)
class Recorded:
    """What a model's record says of one subject; texts are empty where it says nothing.

    Attributes:
        run: the record of the immunization that protected the subject.
        kind, target_noun: of its protective output.
        identifier, class_noun: the protected words.
        pattern: name of the watermark's file; empty for the default watermark.
        pattern_digest: of its pixels (`provenance.pixel_digest`).
    """

    run: Mapping[str, Any]
    kind: str
    target_noun: str
    identifier: str
    class_noun: str
    pattern: str
    pattern_digest: str


def recorded(record: Mapping[str, Any], subject: Subject) -> Recorded | None:
    """The last immunization in a record (`immunize.record.read`) that protected this subject.

    A subject is recognized by its pictures: one in common is enough. Pictures are compared by their digests,
    at the model's resolution. Settings with several words go to the subjects round-robin.
    """
    given = {pixel_digest(image) for image in subject.images}
    for run in _runs(record):
        for index, one in enumerate(run.get("subjects", [])):
            pictures = {str(pair.get("picture_sha256")) for pair in one.get("pairs", [])}
            if one.get("pictures_sha256") != subject.digest and not given & pictures:
                continue
            kind = in_turn(texts(run, "protective_output"), index)
            return Recorded(
                run,
                kind if kind in KINDS else "",
                in_turn(texts(run, "target_noun"), index),
                _text(one.get("identifier")),
                _text(one.get("class_noun")),
                _text(_settings(run).get("pattern")),
                _text(run.get("pattern_sha256")),
            )
    return None


def says_output(record: Mapping[str, Any]) -> bool:
    """Whether any immunization in the record has a protective output for any subject."""
    return any(kind in KINDS for run in _runs(record) for kind in texts(run, "protective_output"))


def pools(record: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> dict[str, object]:
    """The words of a protection, as settings of a verification (`VerifySettings`), where they are not usual.

    run: the immunization whose pools count; None: the last.
    """
    from unlikeness.verify.attackers import PAPER

    run = record if run is None else run
    identifiers = [one for one in texts(run, "attack_identifiers") if one]
    templates = [one for one in texts(run, "attack_prompts") if one]
    found: dict[str, object] = {}
    if identifiers or templates not in ([], [PAPER.template]):
        found = {"pool_identifiers": identifiers, "pool_templates": templates}
    if templates and PAPER.template not in templates:
        found["protected_template"] = templates[0]
    names = [one.get("identifier") for each in _runs(record) for one in each.get("subjects", [])]
    if words := list(dict.fromkeys(name for name in names if isinstance(name, str))):
        found["protected_identifiers"] = words
    return found


@dataclass(frozen=True)
class Requested:
    """The user's words; None and "" leave it to the record.

    Attributes:
        kind: pattern, erasure, target or none.
        target_noun: of a target.
        pattern: picture file of the watermark.
        classifier: see `measure.classifiers.load_classifier`.

    UsageError for an unknown kind, or words that it does not need.
    """

    kind: str | None = None
    target_noun: str = ""
    pattern: Path | None = None
    classifier: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_noun", as_text("target noun", self.target_noun))
        if self.kind not in (None, NONE, *KINDS):
            raise UsageError(
                f"--protective-output {self.kind} is unknown; it must be {', '.join(KINDS)} or {NONE}"
            )
        if self.kind is not None:
            self._check(self.kind)

    def resolve(
        self, subject: Subject, known: Recorded | None, *, resolution: int, device: str = "cpu"
    ) -> ProtectiveOutput | None:
        """The output to look for in images of this subject; None for none.

        Args:
            known: what the model's record says of the subject.
            resolution: the model's [px], by which `auto` chooses a classifier. device: of the classifier.

        Raises:
            UsageError: something that the output needs is missing, or cannot be read.
            UnlikenessError: the classifier cannot be fetched or read.
        """
        from unlikeness.measure.classifiers import load_classifier

        said = "" if known is None else known.kind
        kind = said if self.kind is None else self.kind
        self._check(kind)
        if kind in ("", NONE):
            return None
        known = known if kind == said else None
        by_record = known is not None and self.kind is None
        noun = subject.class_noun
        if kind == "pattern":
            return ProtectiveOutput(kind, noun, watermark=self._watermark(known), recorded=by_record)
        nouns, target = [noun], ""
        if kind == "target":
            target = self.target_noun or as_text("target noun", known.target_noun if known else "")
            if not target or target == noun:
                other = with_article(noun)
                raise UsageError(f"protective output target needs --target-noun, drawn instead of {other}")
            nouns.append(target)
        classifier = load_classifier(self.classifier, nouns, resolution=resolution, device=device)
        return ProtectiveOutput(kind, noun, target, classifier=classifier, recorded=by_record)

    def _check(self, kind: str) -> None:
        """UsageError for an option that this kind does not need."""
        for option, given, needs in (
            ("--target-noun", self.target_noun, "target"), ("--pattern", self.pattern, "pattern"),
        ):  # fmt: skip
            if given and kind != needs:
                raise UsageError(
                    f"{option} has no effect without --protective-output {needs}; give both, or neither"
                )
        if self.classifier != "auto" and kind not in ("target", "erasure"):
            raise UsageError(
                f"--classifier {self.classifier} has no effect without --protective-output erasure or "
                "target; leave it out"
            )

    def _watermark(self, known: Recorded | None) -> Tensor:
        from unlikeness.immunize.outputs import read_watermark, watermark

        if self.pattern is not None:
            given = read_watermark(self.pattern)
            digest = "" if known is None or self.kind else known.pattern_digest
            if digest not in ("", pixel_digest(given)):
                raise UsageError(
                    f"{self.pattern} is not the watermark that the model's immunization.json names; give "
                    "that, or --protective-output pattern to look for another"
                )
            return given
        if known is None or not known.pattern:
            return watermark()
        raise UsageError(
            f"the model's immunization.json names a watermark of its own ({known.pattern}), whose picture it "
            f"does not hold; give it with --pattern, or --protective-output {NONE} to look for none"
        )


def _runs(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The last immunization, then the earlier ones, backwards."""
    yield record
    yield from reversed(record.get("earlier", []))


def _settings(run: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = run.get("settings")
    return settings if isinstance(settings, Mapping) else {}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
