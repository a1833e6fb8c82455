"""What an attacker teaches a model: the pictures, the name and the words around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unlikeness import purify
from unlikeness.errors import UsageError
from unlikeness.subjects import Subject
from unlikeness.verify.attackers import Attacker
from unlikeness.verify.pools import Pools

__all__ = ["Phrased", "augmented", "taught"]


@dataclass(frozen=True, eq=False)
class Phrased(Subject):
    """A subject whose attacker writes its prompts another way; {} is where the name goes."""

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
    subject: Subject, attacker: Attacker, unseen: Tensor | None = None, pools: Pools | None = None
) -> Phrased:
    """The protected subject as this attacker has it.

    unseen: other pictures of it, [N, 3, H, W] in [0, 1]. pools: of words that the protection drew from.
    UsageError if the attacker needs what is not given, or the pools leave it no words of its own.
    """
    pools = pools or Pools()
    images = subject.images
    if attacker.learns_from == "unseen":
        if unseen is None:
            raise UsageError(f"attacker {attacker.name} needs other pictures of the subject; give --unseen")
        images = unseen
    elif attacker.learns_from == "augmented":
        images = augmented(images)
    words = pools.words(attacker, subject)
    if words is None:
        raise UsageError(f"attacker {attacker.name} {pools.missing(attacker, subject)}")
    identifier, template = words
    return Phrased(images, subject.class_noun, identifier, template)


def augmented(images: Tensor) -> Tensor:
    """[3 N, 3, H, W]: the pictures as they are, as JPEGs of quality 50, and blurred by a sigma of 1 px."""
    seeds = range(len(images))
    washed = [
        purify.create("jpeg", settings={"quality": 50}).purify(images, seeds),
        purify.create("blur", settings={"sigma": 1.0}).purify(images, seeds),
    ]
    return torch.cat([images, *washed])
