"""What an attacker knows of a protection, and what it teaches the model: pictures, identifier, prompts.

A protection may draw its identifiers and prompts from pools, which need not be secret. The white box uses the
protected words, the gray box draws from the pools, the black box uses words outside the pools.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from unlikeness import purify
from unlikeness.errors import UsageError
from unlikeness.personalize.data import mixed
from unlikeness.subjects import Subject
from unlikeness.verify.attackers import PAPER, Attacker
from unlikeness.verify.settings import VerifySettings

__all__ = ["PromptedSubject", "ThreatModel", "augmented", "taught"]

_WORDS = ("t@t", "sks", "ohwx", "zwx", "xjy", "olis")
_TEMPLATES = ("an image of {}", "a picture of {}", "a rendering of {}", "a depiction of {}", "a view of {}")
"""For a black box whose own word or prompt is in the pools: the first that is not is taken."""


@dataclass(frozen=True)
class ThreatModel:
    """The words of a protection.

    Attributes:
        identifiers, templates: the pools, without the protected words.
        seed: of the gray box's draw.
        white: the protected template.
        known: identifiers of all protected subjects.
    """

    identifiers: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    seed: int = 0
    white: str = PAPER.template
    known: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: VerifySettings) -> ThreatModel:
        """Those of the settings."""
        s = settings
        white = s.protected_template.strip()
        return cls(s.pool_identifiers, s.pool_templates, s.seed, white, s.protected_identifiers)

    def words(self, attacker: Attacker, subject: Subject) -> tuple[str, str] | None:
        """(identifier, template) of this attacker; None if the pools leave it none.

        Words that differ by case alone are the same, as they are for a CLIP.
        """
        identifier, template = attacker.identifier or subject.identifier, attacker.template
        if template == PAPER.template:
            template = self.white
        if attacker.words == "pool":
            return self._drawn(subject)
        if attacker.words == "outside":
            if attacker.identifier is not None:
                known = (subject.identifier, *self.identifiers, *self.known)
                identifier = _first_outside((attacker.identifier, *_WORDS), known)
            if attacker.template != PAPER.template:
                known = (self.white, *self.templates)
                template = _first_outside((attacker.template, *_TEMPLATES), known)
        return (identifier, template) if identifier and template else None

    def missing(self, attacker: Attacker, subject: Subject) -> str | None:
        """Why this attacker has no words: the end of a sentence that begins with its name."""
        if self.words(attacker, subject) is not None:
            return None
        if attacker.words == "pool":
            return (
                "needs pools of identifiers or prompts from which the protection drew, and there are none "
                "beside the protected ones (pool_identifiers, pool_templates)"
            )
        return "has no identifier or prompt that is not in the pools (pool_identifiers, pool_templates)"

    def _drawn(self, subject: Subject) -> tuple[str, str] | None:
        """One identifier and one template of the pools, but not the two protected ones together."""
        white = subject.identifier.lower(), self.white.lower()
        pairs = [
            (identifier, template)
            for identifier in self.identifiers or (subject.identifier,)
            for template in self.templates or (self.white,)
            if (identifier.lower(), template.lower()) != white
        ]
        if not pairs:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        return pairs[int(torch.randint(len(pairs), (), generator=generator))]


@dataclass(frozen=True, eq=False)
class PromptedSubject(Subject):
    """A subject whose attacker writes its prompts another way; {} in the template is the name."""

    template: str = "a photo of {}"

    @property
    def instance_prompt(self) -> str:
        """c_V in the attacker's words."""
        return self.prompt(self.template)

    @property
    def class_prompt(self) -> str:
        """c_class in the attacker's words."""
        return self.prompt(self.template, of_class=True)


def taught(
    subject: Subject, attacker: Attacker, unseen: Tensor | None = None, threat: ThreatModel | None = None
) -> PromptedSubject:
    """The protected subject as this attacker teaches it.

    unseen: other pictures of it, [N, 3, H, W] in [0, 1]. UsageError if the attacker needs something that is
    not given, or the pools leave it no words.
    """
    threat = threat or ThreatModel()
    images = subject.images
    if attacker.needs_unseen:
        if unseen is None:
            raise UsageError(f"attacker {attacker.name} needs other pictures of the subject; give --unseen")
        how = attacker.learns_from.removeprefix("mixed-")
        images = unseen if how == "unseen" else mixed(images, unseen, how)
    elif attacker.learns_from == "augmented":
        images = augmented(images)
    words = threat.words(attacker, subject)
    if words is None:
        raise UsageError(f"attacker {attacker.name} {threat.missing(attacker, subject)}")
    return PromptedSubject(images, subject.class_noun, *words)


def augmented(images: Tensor) -> Tensor:
    """[3 N, 3, H, W]: the images, as JPEGs of quality 50, and blurred by a sigma of 1 px."""
    seeds = range(len(images))
    jpegs = purify.create("jpeg", settings={"quality": 50}).purify(images, seeds)
    blurred = purify.create("blur", settings={"sigma": 1.0}).purify(images, seeds)
    return torch.cat([images, jpegs, blurred])


def _first_outside(choices: Iterable[str], known: Iterable[str]) -> str:
    """The first choice that is not known; empty if all are."""
    lower = {word.lower() for word in known}
    return next((one for one in choices if one.lower() not in lower), "")
