"""What the record of an immunized model says about one subject: the notice it was promised, and the pools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unlikeness.immunize.attackers import parts
from unlikeness.immunize.outputs import BEHAVIOURS, in_turn, several
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import Subject
from unlikeness.verify.attackers import PAPER

__all__ = ["Protected", "find", "has_notice", "pools"]


@dataclass(frozen=True)
class Protected:
    """A subject in an immunization. run: its record; index: of the subject, among those of that run."""

    run: Mapping[str, Any]
    index: int

    @property
    def behaviour(self) -> str:
        """Its notice: pattern, erasure or target; empty if it has none. Several go to subjects in turn."""
        kind = in_turn(_text(self.run, "behaviour"), self.index)
        return kind if kind in BEHAVIOURS else ""

    @property
    def target_noun(self) -> str:
        """Of a target; several go to subjects in turn."""
        return in_turn(_text(self.run, "target_noun"), self.index)

    @property
    def identifier(self) -> str:
        """The word under which it was protected; empty if the record does not say."""
        return self._said("identifier")

    @property
    def class_noun(self) -> str:
        """What it was protected as one of; empty if the record does not say."""
        return self._said("class_noun")

    def _said(self, name: str) -> str:
        value = self.run["subjects"][self.index].get(name)
        return value.strip() if isinstance(value, str) else ""

    @property
    def pattern(self) -> str:
        """The mark's file, where the immunization had it; empty for the default mark."""
        return _text(self.run, "pattern")

    @property
    def pattern_digest(self) -> str:
        """Of its pixels (`provenance.pixel_digest`); empty if the record does not say."""
        value = self.run.get("pattern_sha256")
        return value if isinstance(value, str) else ""


def find(record: Mapping[str, Any], subject: Subject) -> Protected | None:
    """The last immunization that protected this subject; None if none did.

    record: from `immunize.record.read`. A subject is known by its pictures, one in common is enough; they are
    compared by their digests, at the model's resolution.
    """
    given = {pixel_digest(image) for image in subject.images}
    for run in _runs(record):
        for index, one in enumerate(run.get("subjects", [])):
            pictures = {str(pair.get("picture_sha256")) for pair in one.get("pairs", [])}
            if one.get("pictures_sha256") == subject.digest or given & pictures:
                return Protected(run, index)
    return None


def has_notice(record: Mapping[str, Any]) -> bool:
    """Whether any immunization in the record had one for any subject."""
    return any(kind in BEHAVIOURS for run in _runs(record) for kind in _kinds(run))


def pools(record: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The settings of a verification that say from which words a run drew: `pool_identifiers` and
    `pool_templates`, `protected_template`, the first of these, and `protected_identifiers`, of all subjects
    of all runs. What is as it always is, is left out.

    run: the one that counts among those of the record; None: the last.
    """
    run = record if run is None else run
    identifiers, templates = _text(run, "identifiers"), parts(_text(run, "templates"))
    found = {}
    if identifiers.strip() or templates not in ([], [PAPER.template]):
        found = {"pool_identifiers": identifiers, "pool_templates": "|".join(templates)}
    if templates and PAPER.template not in templates:
        found["protected_template"] = templates[0]
    names = [one.get("identifier") for each in _runs(record) for one in each.get("subjects", [])]
    words = list(dict.fromkeys(name for name in names if isinstance(name, str)))
    if words:
        found["protected_identifiers"] = ",".join(words)
    return found


def _runs(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """This immunization, then those before it, the last first."""
    yield record
    yield from reversed(record.get("earlier", []))


def _kinds(run: Mapping[str, Any]) -> list[str]:
    return several(_text(run, "behaviour"))


def _text(run: Mapping[str, Any], name: str) -> str:
    """A setting that is a text; empty if the run has none of this name."""
    settings = run.get("settings")
    value = settings.get(name) if isinstance(settings, Mapping) else None
    return value if isinstance(value, str) else ""
