"""One attacker's work: model + subject -> the model that has learnt it, as far as it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.diffusion.devices import training_precision
from unlikeness.diffusion.lora import merged_copy
from unlikeness.diffusion.loss import diffusion_loss
from unlikeness.errors import UsageError
from unlikeness.personalize.material import class_prior
from unlikeness.training import adamw, train
from unlikeness.verify.attackers import Attacker, personalizer
from unlikeness.verify.converge import until_converged
from unlikeness.verify.pools import Pools
from unlikeness.verify.settings import Overrides, VerifySettings
from unlikeness.verify.teaching import taught

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.personalize.settings import PersonalizeSettings
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["Attacked", "Priors", "run_attacker"]


class Priors:
    """Class pictures that one model draws, encoded: once for all attackers that ask for the same.

    known: by class prompt, those that were drawn before (`personalize.material.class_prior`), whatever the
    settings ask for.
    """

    def __init__(self, model: TextToImage, known: Mapping[str, Posterior] | None = None) -> None:
        self.model = model
        self.known = dict(known or {})
        self._drawn: dict[tuple[object, ...], Posterior] = {}

    def of(
        self, class_prompt: str, settings: PersonalizeSettings, *, progress: Progress | None = None
    ) -> Posterior | None:
        """Those that an attack with these settings learns from; None if it does without."""
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
    """model: personalized. subject: as it was taught, which knows the prompt. losses: of `converged`."""

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
    """Personalize a copy of `model` in this attacker's way; `model` itself is never changed.

    Args:
        subject: the protected pictures, class noun and identifier.
        base: the common settings, with the protection's pools; overrides: settings of single attackers, by
            their names.
        priors: of this model, to share between attackers.
        unseen: other pictures of the subject, [N, 3, H, W], for the attacker that has only those.
        unrelated: pictures of something else under its class noun, for the fine-tune before an attack;
            without, the model's own class pictures.
        scratch: a folder for the state of the longest training, which can then go on after an interruption.

    Raises:
        UsageError: a wrong setting; an attacker that needs what was not given; priors of another model.
        UnlikenessError: the training diverged.
    """
    base = base or VerifySettings()
    priors = priors or Priors(model)
    if priors.model is not model:
        raise UsageError("the priors are another model's; make them with Priors(model)")
    method = personalizer(attacker, base, overrides)
    learnt = taught(subject, attacker, unseen, Pools.of(base))
    prior = priors.of(learnt.class_prompt, method.settings, progress=progress)
    if attacker.tuned_before:
        model = _tuned_on_something_else(model, learnt, base, prior, unrelated, progress)
    if attacker.until_converged:
        tuned, losses = until_converged(
            model, learnt, attacker.method, method.settings, prior=prior,
            most=base.most_chunks, least_fall=base.least_fall, scratch=scratch, progress=progress,
        )  # fmt: skip
        return Attacked(tuned, learnt, tuple(losses))
    return Attacked(method.personalize(model, learnt, prior=prior, progress=progress), learnt)


def _tuned_on_something_else(
    model: TextToImage,
    subject: Subject,
    base: VerifySettings,
    prior: Posterior | None,
    unrelated: Subject | None,
    progress: Progress | None,
) -> TextToImage:
    """A copy whose U-Net was fine-tuned on pictures of others under their class prompt, without a name."""
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
        step,
        steps=base.unrelated_steps,
        optimizer=adamw(parameters, lr=base.learning_rate, weight_decay=base.weight_decay),
        parameters=parameters,
        seed=base.seed,
        clip=base.clip or None,
        progress=progress,
        description="unrelated fine-tune",
    )
    tuned.denoiser.requires_grad_(False)
    return tuned
