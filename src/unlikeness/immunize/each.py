"""Each subject's own notice: from the list of subjects to the settings of a method, where they go in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Protocol

from unlikeness.errors import UsageError
from unlikeness.immunize.words import in_turn, several
from unlikeness.settings import Checked
from unlikeness.words import with_article

if TYPE_CHECKING:
    from unlikeness.immunize.subject_list import Listed

__all__ = ["Named", "check_turns", "for_each"]

_NAMES = ("behaviour", "target_noun")

_OF_ONE = (
    ("target", "target_noun"), ("pattern", "pattern"), ("pattern", "mark_weight"), ("erasure", "avoidance"),
)  # fmt: skip
"""Behaviours, and settings that say something of one of them alone."""


class Named(Protocol):
    """A subject's words."""

    @property
    def class_noun(self) -> str: ...

    @property
    def identifier(self) -> str: ...


def for_each(
    subjects: Sequence[Listed], values: Mapping[str, object], kind: type[Checked]
) -> dict[str, object]:
    """`values`, with what the subjects say of their own behaviour and target noun.

    A subject that says nothing has what `values` say, where that is one word, or else the default of the
    method's settings `kind`. A method without these settings refuses them as it refuses every unknown one.

    UsageError: the list and `values` both name several; a noun of a subject that ends in no other class.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    made = dict(values)
    for name in _NAMES:
        own = [getattr(one, name) for one in subjects]
        if any(own):
            common = str(values.get(name, defaults.get(name, "")))
            if len(several(common)) > 1:
                raise UsageError(
                    f"{name} {common} goes to the subjects in turn, and the list of subjects names one of "
                    "its own; leave one of the two out"
                )
            made[name] = ",".join(word or common for word in own)
    kinds = str(made.get("behaviour", defaults.get("behaviour", "")))
    for i, one in enumerate(subjects):
        if one.target_noun and in_turn(kinds, i) != "target":
            raise UsageError(
                f"{_called(i, one)} has a target_noun, and its behaviour is not target; give both"
            )
    return made


def check_turns(settings: Checked, subjects: Sequence[Named]) -> None:
    """UsageError for behaviours, target nouns or a mark that do not fit the subjects: more than these are, or
    without an effect; another class without a noun, or which is the subject's own; two endings under one
    name, since all that a fine-tune tells a model of a subject is its name."""
    said = {name: str(getattr(settings, name, "")) for name in _NAMES}
    if not said["behaviour"]:
        return
    for name, words in said.items():
        if len(several(words)) > len(subjects):
            raise UsageError(
                f"{name} {words} goes to the subjects in turn, of whom there are {len(subjects)}; name no "
                "more"
            )
    kinds = [in_turn(said["behaviour"], i) for i in range(len(subjects))]
    defaults = {field.name: field.default for field in fields(settings)}
    for needs, name in _OF_ONE:
        if getattr(settings, name, defaults.get(name)) != defaults.get(name) and needs not in kinds:
            raise UsageError(f"{name} has no effect without behaviour {needs}; give both, or neither")
    endings: dict[str, tuple[str, str]] = {}
    for i, (one, kind) in enumerate(zip(subjects, kinds, strict=True)):
        noun = in_turn(said["target_noun"], i) if kind == "target" else ""
        if kind == "target" and noun.lower() in ("", one.class_noun.lower()):
            raise UsageError(
                f"{_called(i, one)} is to end in another class than {with_article(one.class_noun)}, and "
                f"{'its own' if noun else 'no'} noun is named; give --target-noun, or target_noun in the "
                "list of subjects"
            )
        name = f"{one.identifier} {one.class_noun}".lower()
        if endings.setdefault(name, (kind, noun)) != (kind, noun):
            raise UsageError(
                f"{_called(i, one)} has the name of an earlier one, {name!r}, and another ending; give it an "
                "identifier of its own, or both the same ending"
            )


def _called(index: int, one: Named) -> str:
    return f"subject {index + 1} ({one.class_noun})"
