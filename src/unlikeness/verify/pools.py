"""How much of a protection's words an attacker knows: white, gray or black box.

A protection may be trained with identifiers and prompts drawn from pools, which need not be secret. The white
box uses the protected ones themselves; the gray box draws from the pools; the black box keeps out of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlikeness.errors import UsageError
from unlikeness.immunize.words import parts, words
from unlikeness.verify.attackers import PAPER, Attacker
from unlikeness.verify.settings import VerifySettings

if TYPE_CHECKING:
    from unlikeness.subjects import Subject

__all__ = ["Pools"]

_WORDS = ("t@t", "sks", "ohwx", "zwx", "xjy", "olis")
_TEMPLATES = ("an image of {}", "a picture of {}", "a rendering of {}", "a depiction of {}", "a view of {}")
"""For a black box whose own word or prompt is in the pools; the first that is not is taken."""


@dataclass(frozen=True)
class Pools:
    """identifiers and templates beside the protected ones, from which the protection drew. seed: of the gray
    box's draw. white: the protected template. known: identifiers of all protected subjects."""

    identifiers: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    seed: int = 0
    white: str = PAPER.template
    known: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: VerifySettings) -> Pools:
        """Those of the settings. UsageError for a template without a place for the name."""
        templates, white = parts(settings.pool_templates), settings.protected_template.strip()
        for template in templates:
            if "{}" not in template:
                raise UsageError(
                    f"pool_templates: {template!r} must contain {{}}, where the subject's name goes; write "
                    "several with | between them"
                )
        if "{}" not in white:
            raise UsageError(
                f"protected_template: {white!r} must contain {{}}, where the subject's name goes"
            )
        known = words(settings.protected_identifiers)
        return cls(
            tuple(words(settings.pool_identifiers)), tuple(templates), settings.seed, white, tuple(known)
        )

    def words(self, attacker: Attacker, subject: Subject) -> tuple[str, str] | None:
        """(identifier, template) of this attacker; None if the pools leave it none.

        Case does not tell words apart, as it does not for a CLIP.
        """
        identifier, template = attacker.identifier or subject.identifier, attacker.template
        if template == PAPER.template:
            template = self.white
        if attacker.words == "pool":
            return self._drawn(subject)
        if attacker.words == "outside":
            if attacker.identifier is not None:
                known = _lower((subject.identifier, *self.identifiers, *self.known))
                identifier = _first((attacker.identifier, *_WORDS), known)
            if attacker.template != PAPER.template:
                template = _first((attacker.template, *_TEMPLATES), _lower((self.white, *self.templates)))
        return (identifier, template) if identifier and template else None

    def missing(self, attacker: Attacker, subject: Subject) -> str | None:
        """Why this attacker is left without words: what follows its name in a sentence."""
        if self.words(attacker, subject) is not None:
            return None
        if attacker.words == "pool":
            return (
                "needs pools of identifiers or prompts from which the protection drew, and there are none "
                "beside the protected ones (pool_identifiers, pool_templates)"
            )
        return "has no identifier or prompt that is not in the pools (pool_identifiers, pool_templates)"

    def _drawn(self, subject: Subject) -> tuple[str, str] | None:
        """One identifier and one template of the pools, other than the white box's two together."""
        white = subject.identifier.lower(), self.white.lower()
        pairs = [
            (identifier, template)
            for identifier in self.identifiers or (subject.identifier,)
            for template in self.templates or (self.white,)
            if (identifier.lower(), template.lower()) != white
        ]
        if not pairs:
            return None
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        return pairs[int(torch.randint(len(pairs), (), generator=generator))]


def _lower(words: tuple[str, ...]) -> set[str]:
    return {word.lower() for word in words}


def _first(choices: tuple[str, ...], known: set[str]) -> str:
    """The first that is not known; empty if all are."""
    return next((one for one in choices if one.lower() not in known), "")
