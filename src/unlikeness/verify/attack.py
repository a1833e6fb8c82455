"""One attack: model + subject -> the personalized model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness import personalize
from unlikeness.diffusion.devices import training_precision
from unlikeness.diffusion.lora import merged_copy
from unlikeness.diffusion.loss import diffusion_loss, mean_loss_over_levels
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.files import write_text
from unlikeness.foreign import UnreadableError, read_json, reason
from unlikeness.personalize.data import class_prior
from unlikeness.training import adamw, train
from unlikeness.verify.attackers import Attacker, personalizer
from unlikeness.verify.settings import Overrides, VerifySettings
from unlikeness.verify.threat_model import ThreatModel, taught
from unlikeness.viewing import at_side

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.personalize.settings import PersonalizeSettings
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["Attacked", "Priors", "has_converged", "run_attacker", "until_converged"]

LEVELS = 20
"""Noise levels at which `until_converged` measures the loss."""


class Priors:
    """Class images of one model, encoded once for all attackers with the same settings.

    known: by class prompt, class images from `personalize.data.class_prior`, which are used whatever the
    settings say.
    """

    def __init__(self, model: TextToImage, known: Mapping[str, Posterior] | None = None) -> None:
        self.model = model
        self.known = dict(known or {})
        self._drawn: dict[tuple[object, ...], Posterior] = {}

    def of(
        self, class_prompt: str, settings: PersonalizeSettings, *, progress: Progress | None = None
    ) -> Posterior | None:
        """The class images for an attack with these settings; None if it uses none."""
        s = settings
        if not (s.class_images and s.prior_weight):
            return None
        if class_prompt in self.known:
            return self.known[class_prompt]
        key = (class_prompt, s.class_images, s.class_steps, s.class_guidance, s.class_seed)
        if key not in self._drawn:
            self._drawn[key] = class_prior(self.model, class_prompt, s, progress=progress)
        return self._drawn[key]


@dataclass(frozen=True)
class Attacked:
    """A personalized model, the subject as it was taught, and the losses of `until_converged`."""

    model: TextToImage
    subject: Subject
    losses: tuple[float, ...] = ()


def run_attacker(
    model: TextToImage,
    subject: Subject,
    attacker: Attacker,
    base: VerifySettings | None = None,
    *,
    overrides: Overrides | None = None,
    priors: Priors | None = None,
    unseen: Tensor | None = None,
    unrelated: Subject | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> Attacked:
    """Personalize a copy of `model` as this attacker does; `model` itself does not change.

    Args:
        subject: protected pictures, class noun and identifier.
        base: common settings, with the protection's pools. overrides: settings of single attackers by name.
        priors: class images of this model, to share between attackers.
        unseen: other pictures of the subject, [N, 3, H, W], for the attacker that has only those.
        unrelated: pictures of something else, for the fine-tune before an attack. None: class images.
        scratch: folder for the state of the longest training, which continues after an interruption.

    Raises:
        UsageError: a wrong setting, something missing that this attacker needs, or priors of another model.
        UnlikenessError: the training diverged.
    """
    base = base or VerifySettings()
    priors = priors or Priors(model)
    if priors.model is not model:
        raise UsageError("the priors are another model's; make them with Priors(model)")
    method = personalizer(attacker, base, overrides)
    learnt = taught(subject, attacker, unseen, ThreatModel.of(base))
    prior = priors.of(learnt.class_prompt, method.settings, progress=progress)
    if attacker.tuned_before:
        model = _tuned_on_something_else(model, learnt, base, prior, unrelated, progress)
    if attacker.until_converged:
        tuned, losses = until_converged(
            model, learnt, attacker.method, method.settings, prior=prior,
            most=base.most_chunks, least_fall=base.least_fall, scratch=scratch, progress=progress,
        )  # fmt: skip
        return Attacked(tuned, learnt, tuple(losses))
    tuned = method.personalize(model, learnt, prior=prior, progress=progress)
    return Attacked(tuned, personalize.known_as(method, learnt))


def _tuned_on_something_else(
    model: TextToImage,
    subject: Subject,
    base: VerifySettings,
    prior: Posterior | None,
    unrelated: Subject | None,
    progress: Progress | None,
) -> TextToImage:
    """A copy whose denoiser was fine-tuned on other pictures under their class prompt."""
    if unrelated is not None:
        kept, prompt = model.encode_all(unrelated.images), unrelated.class_prompt
    elif prior is not None:
        kept, prompt = prior, subject.class_prompt
    else:
        raise UsageError("attacker pre-tuned needs pictures to tune on: give --unrelated, or class_images")
    tuned = merged_copy(model)
    tuned.widen().denoiser.requires_grad_(True)
    c = tuned.condition([prompt])
    precision = training_precision(base.precision, tuned.device)

    def step(index: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(kept), (base.batch_size,), generator=generator)
        z0 = kept[which.to(kept.mean.device)].sample(generator)
        with tuned.autocast(precision):
            return diffusion_loss(tuned, z0, c, generator=generator)

    parameters = list(tuned.denoiser.parameters())
    train(
        step, steps=base.unrelated_steps, parameters=parameters, seed=base.seed, clip=base.clip or None,
        optimizer=adamw(parameters, lr=base.learning_rate, weight_decay=base.weight_decay),
        progress=progress, description="unrelated fine-tune",
    )  # fmt: skip
    tuned.denoiser.requires_grad_(False)
    return tuned


def has_converged(losses: Sequence[float], *, most: int, least_fall: float) -> bool:
    """Whether the last loss fell by less than a share of `least_fall`, or there are `most` losses."""
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

    Training stops after the first chunk that lowers the loss by less than a share of `least_fall`, and after
    `most` chunks. The loss is the diffusion loss on the learnt pictures under their own prompt, at the same
    noise after each chunk: the mean of the training's own losses varies by more than 1 %.

    scratch: folder that keeps the training between chunks and after an interruption; None: a temporary one.
    All chunks are one training: each begins with the state of the last.
    """
    with ExitStack() as stack:
        folder = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unlikeness-")))
        state, curve = folder / "state.safetensors", folder / "losses.json"
        losses = _read_losses(curve) if state.exists() else []

        def trained(chunks: int) -> TextToImage:
            longer = replace(settings, steps=chunks * settings.steps)
            return personalize.personalize(
                model, subject, method, longer, prior=prior, checkpoint=state, progress=progress
            )

        tuned = None
        while not has_converged(losses, most=most, least_fall=least_fall):
            tuned = None  # the state is on disk; memory may not hold two models
            tuned = trained(len(losses) + 1)
            images = at_side(subject.images, model.resolution)
            losses.append(
                mean_loss_over_levels(
                    tuned, images, subject.instance_prompt, seed=settings.seed, levels=LEVELS
                )
            )
            write_text(curve, json.dumps(losses))
        if tuned is None:  # an earlier run was interrupted after its last chunk
            tuned = trained(len(losses))
        return tuned, losses


def _read_losses(curve: Path) -> list[float]:
    try:
        return [float(value) for value in read_json(curve)] if curve.exists() else []
    except (UnreadableError, ValueError, TypeError) as error:
        raise UnlikenessError(
            f"{curve} is damaged ({reason(error)}); delete its folder and start again"
        ) from error
