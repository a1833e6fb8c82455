"""Others of the protected subjects' classes, whose pictures are known, and who must stay learnable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unlikeness.errors import UsageError
from unlikeness.immunize.material import Kept, class_settings, picture_digest
from unlikeness.personalize.material import prepare

if TYPE_CHECKING:
    from unlikeness.diffusion.latents import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.settings import ImmunizeSettings
    from unlikeness.subjects import Subject

__all__ = ["check_others", "known"]


def check_others(others: Sequence[Subject], subjects: Sequence[Subject], settings: ImmunizeSettings) -> None:
    """UsageError: no attack on a bystander is simulated (`settings.bystanders`), so that nobody would meet
    them; one of a class of which nobody is protected; a picture of a protected subject among theirs."""
    if others and not settings.bystanders:
        raise UsageError(
            "others are met in simulated attacks on bystanders, of which there are none; set bystanders, "
            "such as to 3, or leave the others out"
        )
    nouns = {one.class_noun for one in subjects}
    protected = {picture_digest(image) for one in subjects for image in one.images}
    for other in others:
        if other.class_noun not in nouns:
            raise UsageError(
                f"among the others is a {other.class_noun}, and no {other.class_noun} is protected; leave it "
                "out"
            )
        if any(picture_digest(image) in protected for image in other.images):
            raise UsageError(
                f"a picture of a protected {other.class_noun} is among the others', who are to stay "
                "learnable; take it out"
            )


def known(
    original: TextToImage, others: Sequence[Subject], kept: Sequence[Kept], settings: ImmunizeSettings
) -> dict[str, list[Posterior]]:
    """By class noun, the encoded pictures of each of them."""
    how, priors = class_settings(settings), {one.subject.class_noun: one.prior for one in kept}
    found: dict[str, list[Posterior]] = {}
    for other in others:
        pictures = prepare(original, other, how, prior=priors[other.class_noun]).subject
        found.setdefault(other.class_noun, []).append(pictures)
    return found
