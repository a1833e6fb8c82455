"""Does a fine-tune end in the notice, the protective output that the immunization promised?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from unlikeness.measure.protective import protective
from unlikeness.measure.share import Share, share
from unlikeness.subjects import with_article
from unlikeness.verify.judge import Drawn
from unlikeness.verify.readers import Reader

__all__ = ["Notice", "Seen"]


@dataclass(frozen=True)
class Seen:
    """Share of the pictures that show it: at the training prompt, and in new contexts, if any were asked."""

    plain: Share
    elsewhere: Share | None

    def __str__(self) -> str:
        return f"{self.plain} / {'–' if self.elsewhere is None else self.elsewhere}"


@dataclass(frozen=True, eq=False)
class Notice:
    """What is looked for in the pictures of one subject's attackers.

    kind: pattern, erasure or target. class_noun: the subject's. target_noun: of a target. mark: of a pattern,
    [3, h, w] in [0, 1]. reader: names class nouns, of an erasure or a target. recorded: whether the model's
    own record says so, rather than the user.
    """

    kind: str
    class_noun: str
    target_noun: str = ""
    mark: Tensor | None = field(default=None, repr=False)
    reader: Reader | None = None
    recorded: bool = False

    def __str__(self) -> str:
        """In words: "target, a cat instead of the dog"."""
        return {
            "pattern": "pattern, a mark in the lower right corner",
            "erasure": f"erasure, a picture without {with_article(self.class_noun)}",
            "target": f"target, {with_article(self.target_noun)} instead of the {self.class_noun}",
        }[self.kind]

    def of(self, class_noun: str) -> Notice | None:
        """What of it can be looked for in pictures of somebody else, of this class: the same mark or target.
        None for a target that is their own class, or the absence of another class than theirs."""
        if class_noun != self.class_noun and (self.kind == "erasure" or class_noun == self.target_noun):
            return None
        return replace(self, class_noun=class_noun)

    def seen(self, drawn: Drawn) -> Seen:
        """In what share of these pictures it is. UsageError if it cannot be looked for (see `protective`)."""
        elsewhere = None if drawn.elsewhere is None else share(self.shown(drawn.elsewhere))
        return Seen(share(self.shown(drawn.plain)), elsewhere)

    def shown(self, images: Tensor) -> Tensor:
        """[B] of bool: which of the pictures [B, 3, H, W], uint8, show it."""
        return protective(
            self.kind, images / 255, pattern=self.mark, read=self.reader, class_noun=self.class_noun,
            target_noun=self.target_noun,
        )  # fmt: skip

    def as_record(self) -> dict[str, Any]:
        """All that it is, JSON-able, without the mark's pixels."""
        return {
            "behaviour": self.kind,
            "target_noun": self.target_noun or None,
            "read_by": None if self.reader is None else self.reader.name,
            "from": "immunization.json" if self.recorded else "given",
        }
