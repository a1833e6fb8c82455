"""Which notice to look for: what the user asks for, else what the model's record says of the subject."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unlikeness.errors import UsageError
from unlikeness.immunize.words import BEHAVIOURS
from unlikeness.words import as_text, with_article

if TYPE_CHECKING:
    from torch import Tensor

    from unlikeness.subjects import Subject
    from unlikeness.verify.notice import Notice
    from unlikeness.verify.protected import Protected

__all__ = ["NONE", "Sought"]

NONE = "none"
"""The behaviour of a user who wants none looked for, whatever the record says."""


@dataclass(frozen=True)
class Sought:
    """The user's words; None and "" leave it to the record.

    behaviour: pattern, erasure, target or none. target_noun: of a target. pattern: the mark's picture file.
    reader: see `readers.load_reader`. UsageError for an unknown behaviour, or words that it has no use for.
    """

    behaviour: str | None = None
    target_noun: str = ""
    pattern: Path | None = None
    reader: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_noun", as_text("target noun", self.target_noun))
        if self.behaviour not in (None, NONE, *BEHAVIOURS):
            raise UsageError(
                f"--protective-output {self.behaviour} is unknown; give {', '.join(BEHAVIOURS)} or {NONE}"
            )
        if self.behaviour is not None:
            self._check(self.behaviour)

    def notice(
        self, subject: Subject, protected: Protected | None, *, resolution: int, device: str = "cpu"
    ) -> Notice | None:
        """What to look for in pictures of this subject; None for nothing.

        protected: what the model's record says of it. resolution: the model's [px], and device: for whoever
        reads class nouns.

        Raises:
            UsageError: something that the behaviour needs is missing, or cannot be read.
            UnlikenessError: the reader cannot be fetched or read.
        """
        from unlikeness.verify.notice import Notice
        from unlikeness.verify.readers import load_reader

        said = "" if protected is None else protected.behaviour
        kind = said if self.behaviour is None else self.behaviour
        self._check(kind)
        if kind in ("", NONE):
            return None
        known = protected if kind == said else None
        recorded = known is not None and self.behaviour is None
        if kind == "pattern":
            return Notice(kind, subject.class_noun, mark=self._mark(known), recorded=recorded)
        nouns, target = [subject.class_noun], ""
        if kind == "target":
            target = self.target_noun or as_text("target noun", known.target_noun if known else "")
            if not target or target == subject.class_noun:
                other = with_article(subject.class_noun)
                raise UsageError(f"behaviour target needs --target-noun, what is drawn instead of {other}")
            nouns.append(target)
        reader = load_reader(self.reader, nouns, resolution=resolution, device=device)
        return Notice(kind, subject.class_noun, target, reader=reader, recorded=recorded)

    def _check(self, kind: str) -> None:
        """UsageError for what this behaviour has no use for."""
        for option, given, needs in (
            ("--target-noun", self.target_noun, "target"), ("--pattern", self.pattern, "pattern"),
        ):  # fmt: skip
            if given and kind != needs:
                raise UsageError(
                    f"{option} has no effect without --protective-output {needs}; give both, or neither"
                )
        if self.reader != "auto" and kind not in ("target", "erasure"):
            raise UsageError(
                f"--classifier {self.reader} has no effect without a notice that is read; leave it out"
            )

    def _mark(self, known: Protected | None) -> Tensor:
        from unlikeness.immunize.outputs import mark, read_mark
        from unlikeness.provenance import pixel_digest

        if self.pattern is not None:
            given = read_mark(self.pattern)
            recorded = "" if known is None or self.behaviour else known.pattern_digest
            if recorded not in ("", pixel_digest(given)):
                raise UsageError(
                    f"{self.pattern} is not the mark that the model's immunization.json names; give that, or "
                    "--protective-output pattern to look for another"
                )
            return given
        if known is None or not known.pattern:
            return mark()
        raise UsageError(
            f"the model's immunization.json names a mark of its own ({known.pattern}), whose picture it does "
            f"not hold; give it with --pattern, or --protective-output {NONE} to look for no notice"
        )
