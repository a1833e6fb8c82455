"""The attacker who does not stop after a number of steps, but when it learns no more."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unlikeness import personalize
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.errors import UnlikenessError
from unlikeness.files import write_text
from unlikeness.foreign import UnreadableError, read_json, reason
from unlikeness.viewing import at_side

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.personalize.settings import PersonalizeSettings
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["has_converged", "until_converged"]

LEVELS = 20
"""Noise levels at which the loss is measured after a chunk."""


def has_converged(losses: Sequence[float], *, most: int, least_fall: float) -> bool:
    """Whether the last loss is not a share of `least_fall` below the one before, or there are `most`."""
    if len(losses) >= most:
        return True
    return len(losses) >= 2 and losses[-1] > (1 - least_fall) * losses[-2]


def until_converged(
    model: TextToImage,
    subject: Subject,
    method: str,
    settings: PersonalizeSettings,
    *,
    prior: Posterior | None = None,
    most: int = 8,
    least_fall: float = 0.01,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> tuple[TextToImage, list[float]]:
    """(personalized model, its loss after each chunk): trained in chunks of `settings.steps` steps.

    It stops after the first chunk that lowers the loss by less than a share of `least_fall`, at the latest
    after `most`. The loss is the diffusion loss on the pictures that it learns from, under its own prompt, at
    the same noise after each chunk: the mean of the training's own losses wavers by more than a hundredth.

    scratch: a folder that keeps the training between chunks, and over an interruption; None takes one that
    is removed afterwards. A chunk begins with the state of the last: one training, whatever its pieces.
    """
    with ExitStack() as stack:
        folder = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unlikeness-")))
        state, curve = folder / "state.safetensors", folder / "losses.json"
        losses = _read(curve) if state.exists() else []
        tuned = None
        while not has_converged(losses, most=most, least_fall=least_fall):
            tuned = None  # what is on disk is enough; two at once may be more than there is memory for
            tuned = _trained(model, subject, method, settings, len(losses) + 1, prior, state, progress)
            losses.append(
                mean_loss_over_levels(
                    tuned,
                    at_side(subject.images, model.resolution),
                    subject.instance_prompt,
                    seed=settings.seed,
                    levels=LEVELS,
                )
            )
            _write(curve, losses)
        if tuned is None:  # an earlier run had come to the end, and was interrupted after it
            tuned = _trained(model, subject, method, settings, len(losses), prior, state, progress)
        return tuned, losses


def _trained(
    model: TextToImage,
    subject: Subject,
    method: str,
    settings: PersonalizeSettings,
    chunks: int,
    prior: Posterior | None,
    state: Path,
    progress: Progress | None,
) -> TextToImage:
    longer = replace(settings, steps=chunks * settings.steps)
    return personalize.personalize(
        model, subject, method, longer, prior=prior, checkpoint=state, progress=progress
    )


def _read(curve: Path) -> list[float]:
    try:
        return [float(value) for value in read_json(curve)] if curve.exists() else []
    except (UnreadableError, ValueError, TypeError) as error:
        raise UnlikenessError(
            f"{curve} is damaged ({reason(error)}); delete its folder and start again"
        ) from error


def _write(curve: Path, losses: Sequence[float]) -> None:
    write_text(curve, json.dumps(list(losses)))
