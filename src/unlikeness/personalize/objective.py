"""L_per: the loss that every personalization here minimises, and that a defence simulates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from unlikeness.checkpoints import steps_done
from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.devices import aside, training_precision
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.diffusion.loss import diffusion_loss
from unlikeness.diffusion.words import learn_word, settle_word
from unlikeness.eight_bit import check_eight_bit
from unlikeness.errors import UsageError
from unlikeness.personalize.data import Data, prepare
from unlikeness.personalize.settings import TrainerSettings, WordSettings
from unlikeness.training import adamw, constant, identity_of, train

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.personalize.settings import PersonalizeSettings
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["NEW", "FineTuning", "PersonalizationStep", "check_checkpoint", "personalization_loss"]

NEW = "<sks>"
"""The new word of methods that train one, for the identifier sks."""

S = TypeVar("S", bound="PersonalizeSettings")


def personalization_loss(
    model: TextToImage,
    z0: Tensor,
    c: Condition,
    z0_class: Tensor | None = None,
    c_class: Condition | None = None,
    *,
    prior_weight: float = 1.0,
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """L_per = L_diff(subject, c_V) + w · L_diff(class, c_class) (Ruiz et al. 2023, Eq. 2), in one pass.

    z0: [B, C, h, w] of the subject under c = c_V, of one prompt or B. z0_class: [K, C, h, w] under c_class;
    None for the first term alone. t, eps: for both halves, subject first, [B + K, ...]; t is long. They are
    drawn from `generator` if not given.
    """
    if z0_class is None:
        return diffusion_loss(model, z0, c, t=t, eps=eps, generator=generator)
    if c_class is None:
        raise UsageError("class pictures need the class prompt's condition, c_class")
    if z0.shape[1:] != z0_class.shape[1:]:  # a bucket of another size; both draw their own t and eps
        own, of_class = (
            diffusion_loss(model, z, one, generator=generator) for z, one in ((z0, c), (z0_class, c_class))
        )
        return own + prior_weight * of_class
    count, k = len(z0), len(z0_class)
    both = Condition.cat([c.expand(count), c_class.expand(k)])
    each = diffusion_loss(
        model, torch.cat([z0, z0_class]), both, t=t, eps=eps, generator=generator, reduce="none"
    )
    return each[:count].mean() + prior_weight * each[count:].mean()


class PersonalizationStep:
    """One step of personalization as `training.train` takes it: (index, generator) -> L_per.

    model: the one being trained, which may be changed between calls. text_encoder: condition on the prompts
    afresh at every step, with the text encoder's gradient.
    """

    def __init__(
        self,
        model: TextToImage,
        subject: Subject,
        material: Data,
        settings: PersonalizeSettings,
        *,
        text_encoder: bool = False,
    ) -> None:
        self.model = model
        self.material = material
        self.settings = settings
        self.text_encoder = text_encoder
        self.prompts = _prompts(subject, settings, material.prior is not None)
        own = _own_prompts(subject, settings)
        self._of = [self.prompts.index(one) for one in own]
        self._own = len(set(own))
        self._c = None if text_encoder else model.condition(self.prompts)
        # On a CPU half precision has an attention of its own (`autocast`), which recomputing would not meet.
        whole = settings.checkpointing and model.device.type == "cpu"
        self.precision = "float32" if whole else training_precision(settings.precision, model.device)

    def __call__(self, index: int, generator: torch.Generator) -> Tensor:
        z0, z0_class = self.material.draw(index, self.settings.batch_size, generator)
        with self.model.autocast(self.precision):
            c = self.model.condition(self.prompts, grad=True) if self._c is None else self._c
            own, of_class = c[:1], c[self._own :]
            if self._own > 1:
                own = c[[self._of[i] for i in self.material.pictures(index, self.settings.batch_size)]]
            if z0.shape[1:] != self.model.latent_shape:
                factor = self.model.autoencoder.factor
                own = self.model.family.sized(own, z0.shape[2] * factor, z0.shape[3] * factor)
            return personalization_loss(
                self.model,
                z0,
                own,
                z0_class,
                of_class,
                prior_weight=self.settings.prior_weight,
                generator=generator,
            )


def check_checkpoint(
    path: Path | None, model: TextToImage, subject: Subject, settings: PersonalizeSettings, *, prior: bool
) -> None:
    """UsageError if the file is another model's, subject's or prompt's, or of more steps than wanted;
    UnlikenessError if it is damaged. Call it before anything is drawn.

    model: as it is before its first step. prior: whether class pictures will be given.
    """
    if path is None:
        return
    prompts = _prompts(subject, settings, prior)
    done = steps_done(path, identity_of(settings.seed, _identity(settings, subject, model, prompts)))
    if done > settings.steps:
        raise UsageError(
            f"the checkpoint {path} has {done} steps already, more than the {settings.steps} asked for; "
            "raise steps, or give another checkpoint"
        )


class FineTuning(ABC, Generic[S]):
    """A method that minimises L_per over some weights of a copy of the model.

    A method derives from it, names itself and its settings, and says in `trainable` what it trains.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Any]]

    def __init__(self, settings: S | None = None) -> None:
        self.settings: S = self.settings_type() if settings is None else settings
        self._noun = "photo"  # until there is a subject

    @abstractmethod
    def trainable(self, model: TextToImage, word: str = NEW) -> tuple[TextToImage, list[Tensor]]:
        """(a copy of `model`, its weights that are trained, with `requires_grad`). word: the new word, for
        methods that train one."""

    def known_as(self, subject: Subject) -> Subject:
        """The subject under the word that the result has for it: `<sks>` where a new word is trained."""
        if not isinstance(self.settings, WordSettings):
            return subject
        word = subject.identifier
        return replace(subject, identifier=word if word[:1] + word[-1:] == "<>" else f"<{word}>")

    def new_word(self, tuned: TextToImage, word: str) -> list[Tensor]:
        """Add a new word to the copy, as the settings say; its vectors, to train."""
        s = self.settings
        assert isinstance(s, WordSettings)
        like = s.initializer or self._noun
        return list(learn_word(tuned, word, like=like, count=s.vectors))

    def finish(self, tuned: TextToImage) -> None:
        """Take out of the trained copy what only training needs."""
        settle_word(tuned)

    def write(self, tuned: TextToImage, folder: Path, word: str, *, lora_format: str) -> None:
        """Write the result below a folder: here as a whole model. word: what `known_as` names it."""
        tuned.save_pretrained(folder)

    def personalize(
        self,
        model: TextToImage,
        subject: Subject,
        *,
        prior: Posterior | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> TextToImage:
        """A personalized copy of `model`, frozen; `model` itself does not change.

        prior: class images from `data.class_prior`, generated now if not given. checkpoint: file to go on
        from. Trained weights are float32 at least, and stay so: rounded to half precision, small updates
        would vanish. A LoRA that the model has is added to its weights first.
        """
        s, subject, self._noun = self.settings, self.known_as(subject), subject.class_noun
        if s.eight_bit_adam:
            check_eight_bit(model.device)
        tuned, parameters = self.trainable(model, subject.identifier)
        check_checkpoint(checkpoint, tuned, subject, s, prior=prior is not None)
        data = prepare(model, subject, s, prior=prior, progress=progress)
        reads = bool(getattr(s, "text_encoder", False)) or isinstance(s, WordSettings)
        step = PersonalizationStep(tuned, subject, data, s, text_encoder=reads)
        identity = {} if checkpoint is None else _identity(s, subject, tuned, step.prompts)
        with aside(tuned, conditioner=not reads), _recomputing(tuned, s):
            train(
                step,
                steps=s.steps,
                optimizer=self._optimizer(tuned, parameters),
                parameters=parameters,
                seed=s.seed,
                clip=s.clip or None,
                schedule=constant(warmup=s.warmup),
                checkpoint=checkpoint,
                settings=identity,
                progress=progress,
                description=self.name,
            )
        for p in parameters:
            p.requires_grad_(False)
        self.finish(tuned)
        return tuned

    def _optimizer(self, tuned: TextToImage, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """AdamW, with a learning rate of their own for text encoders where the settings have one."""
        s = self.settings
        optimizer = adamw(
            parameters, lr=s.learning_rate, weight_decay=s.weight_decay, eight_bit=s.eight_bit_adam
        )
        rate = getattr(s, "text_encoder_learning_rate", None)
        if rate is not None:
            [group] = optimizer.param_groups
            reading = {id(p) for p in tuned.conditioner.parameters()}
            own = [p for p in parameters if id(p) in reading]
            group["params"] = [p for p in parameters if id(p) not in reading]
            optimizer.add_param_group({"params": own, "lr": rate})
        return optimizer


@contextmanager
def _recomputing(model: TextToImage, settings: PersonalizeSettings) -> Iterator[None]:
    """Inside, the denoiser recomputes activations, where the settings want it."""
    if not settings.checkpointing:
        yield
        return
    model.denoiser.enable_gradient_checkpointing()
    try:
        yield
    finally:
        model.denoiser.disable_gradient_checkpointing()


def _prompts(subject: Subject, settings: PersonalizeSettings, prior: bool) -> list[str]:
    """Under which something is learnt: without class pictures nothing is under the class prompt."""
    has = settings.prior_weight and (prior or settings.class_images)
    own = list(dict.fromkeys(_own_prompts(subject, settings)))
    return [*own, subject.class_prompt] if has else own


def _own_prompts(subject: Subject, settings: PersonalizeSettings) -> list[str]:
    """Of each picture of the subject; one, if all have the same."""
    if isinstance(settings, TrainerSettings) and settings.captions and subject.captions:
        return subject.captioned_prompts
    return [subject.instance_prompt]


def _identity(
    settings: PersonalizeSettings, subject: Subject, model: TextToImage, prompts: Sequence[str]
) -> dict[str, Any]:
    """What decides the result, but for how far it goes, and so which checkpoint is this run's."""
    values = asdict(settings)
    if not settings.eight_bit_adam:
        del values["eight_bit_adam"]  # as it was before there was such a setting
    return {
        **values,
        "steps": None,
        "subject": subject.digest,
        "model": fingerprint(model),
        "prompts": list(prompts),
    }
