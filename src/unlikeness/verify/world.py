"""What attackers of a toybox model are compared with, where the user names nothing: others of its world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unlikeness.diffusion.vocabulary import only_nouns
from unlikeness.subjects import Subject
from unlikeness.verify.run import Other

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["original_of", "originals", "unprotected"]

_SEED = 9015
"""The individual that controls learn: of each class, one that the untrained toybox draws no likeness of."""

_HELD_OUT, _OF_CLASS = 10, 24


def originals(record: Mapping[str, Any]) -> set[str]:
    """The fingerprints of all models that the runs in this record began with, or were held to."""
    runs = (record, *record.get("earlier", []))
    found = [run.get(name) for run in runs for name in ("model_fingerprint", "original_fingerprint")]
    return {digest for digest in found if isinstance(digest, str)}


def original_of(model: TextToImage, record: Mapping[str, Any]) -> TextToImage | None:
    """The shipped toybox, if a run in this record (`immunize.record.read`) began with it; else None.

    No other original is looked for: a record is a stranger's text, and what it names is not opened.
    """
    if not only_nouns(model.conditioner.tokenizer):
        return None
    from unlikeness.diffusion.fingerprint import fingerprint
    from unlikeness.diffusion.model import TextToImage

    said = originals(record)
    if not said:
        return None
    toybox = TextToImage.from_pretrained("toybox", device=str(model.device), dtype="float32")
    return toybox if fingerprint(toybox) in said else None


def unprotected(model: TextToImage, subject: Subject) -> Other | None:
    """An individual of the subject's class in the toybox's world, whom no model protects; None for a model of
    another world. It comes with as many pictures, and with real members of its class."""
    nouns = only_nouns(model.conditioner.tokenizer)
    noun = subject.class_noun.lower().split()[-1]
    if noun not in nouns:
        return None
    from unlikeness.toybox.cast import class_pictures, member

    who = member(_SEED, noun)
    alike = Subject(who.subject(len(subject.images)).images, subject.class_noun, subject.identifier)
    of_class = class_pictures(noun, _OF_CLASS, _SEED)
    return Other(f"{noun}-{_SEED} of the toybox", alike, who.held_out(_HELD_OUT), of_class)
