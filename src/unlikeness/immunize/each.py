"""Each subject's own notice: from the list of subjects to the settings of a method, where they go in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from unlikeness.errors import UsageError
from unlikeness.immunize.behaviours import in_turn, several
from unlikeness.settings import Checked

if TYPE_CHECKING:
    from unlikeness.immunize.subject_list import Listed

__all__ = ["check_turns", "for_each"]

_NAMES = ("behaviour", "target_noun")


def for_each(
    subjects: Sequence[Listed], values: Mapping[str, object], kind: type[Checked]
) -> dict[str, object]:
    """`values`, with what the subjects say of their own behaviour and target noun.

    A subject that says nothing has what `values` say, where that is one word, or else the default of the
    method's settings `kind`. A method without these settings refuses them as it refuses every unknown one.

    UsageError: the list and `values` both name several.
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
    return made


def check_turns(settings: object, subjects: Sequence[Listed]) -> None:
    """UsageError if the settings name more behaviours or target nouns than there are subjects, or if one of
    these is to end in another class of which no noun is named."""
    said = {name: str(getattr(settings, name, "")) for name in _NAMES}
    for name, words in said.items():
        if len(several(words)) > len(subjects):
            raise UsageError(
                f"{name} {words} goes to the subjects in turn, of whom there are {len(subjects)}; name no "
                "more"
            )
    for i, one in enumerate(subjects):
        if in_turn(said["behaviour"], i) == "target" and not in_turn(said["target_noun"], i):
            raise UsageError(
                f"subject {i + 1} ({one.class_noun}) is to end in another class, and no noun of it is named; "
                "give --target-noun, or target_noun in the list of subjects"
            )
