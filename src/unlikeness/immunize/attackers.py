"""Simulated attackers: which one attacks when, and the personalization steps it takes.

APDM simulates one attacker: full fine-tuning of the denoiser under the subject's own prompt. Ours may differ
in identifier, prompt, learning rate and in what they train.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.immunize.data import ProtectedSubject
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.personalize.objective import personalization_loss
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject
from unlikeness.training import adamw

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage

__all__ = [
    "Attack", "Attacker", "Attackers", "Turn", "attacks_on_each", "backward", "check_prompts", "every_prompt",
    "turn", "turns",
]  # fmt: skip

T = TypeVar("T")

_ADAPTER = "attack"
"""Name of a low-rank attack's adapter."""


@dataclass(frozen=True)
class Turn:
    """An entry in the schedule of attacks. subject: index of a protected subject; unprotected: attack an
    unprotected subject of its class instead."""

    subject: int
    unprotected: bool


def turn(settings: ImmunizeSettings, attack: int, subjects: int) -> Turn:
    """The schedule's entry for simulated attack number `attack`, from 0 on.

    Each round attacks every protected subject once, in an order drawn for the round. From the share
    `unprotected_from` of the run on, every `unprotected_every`-th attack targets an unprotected subject,
    between the rounds' attacks.
    """
    every = settings.unprotected_every
    after = attack - round(settings.unprotected_from * _attacks(settings))
    unprotected = bool(every) and after >= 0 and after % every == every - 1
    before = max(after, 0) // every if every else 0
    round_, place = divmod(attack - before, subjects)
    order = torch.randperm(subjects, generator=step_generator(settings.seed, -1 - round_))
    return Turn(int(order[place]), unprotected)


def turns(settings: ImmunizeSettings, subjects: int) -> list[Turn]:
    """The schedule of a whole run."""
    return [turn(settings, attack, subjects) for attack in range(_attacks(settings))]


def attacks_on_each(settings: ImmunizeSettings, subjects: int) -> list[int]:
    """Number of simulated attacks on each protected subject in a whole run."""
    every = turns(settings, subjects)
    return [sum(one.subject == i and not one.unprotected for one in every) for i in range(subjects)]


def _attacks(settings: ImmunizeSettings) -> int:
    """Number of simulated attacks in a whole run."""
    return -(-settings.outer_steps // settings.episode)


@dataclass(frozen=True)
class Attack:
    """One simulated attack.

    target: what the attacker has. subject: the target under the attacker's identifier. prompt, class_prompt:
    of its training pictures and class pictures; c_V, c_class: their conditions, by the original model.
    rank: of its updates; 0 trains all weights. text_encoder: it trains the text encoder too.
    """

    target: ProtectedSubject
    subject: Subject
    prompt: str
    class_prompt: str
    c_V: Condition  # noqa: N815 - the papers' name
    c_class: Condition
    learning_rate: float
    rank: int
    text_encoder: bool = False

    def read(self, model: TextToImage, *, grad: bool = False) -> tuple[Condition, Condition]:
        """(c_V, c_class) as the attacked model reads the prompts now; grad: with the graph that trains
        its text encoder, where it is trained."""
        if not self.text_encoder:
            return self.c_V, self.c_class
        c = model.condition([self.prompt, self.class_prompt], grad=grad)
        return c[:1], c[1:]


class Attackers:
    """The distribution of attackers that the settings describe, of `model` before any attack. UsageError for
    a prompt that does not fit."""

    def __init__(
        self, model: TextToImage, subjects: Sequence[ProtectedSubject], settings: ImmunizeSettings
    ) -> None:
        self.model, self.settings = model, settings
        check_prompts(model, subjects, settings, settings.attack_prompts)

    def draw(self, target: ProtectedSubject, generator: torch.Generator) -> Attack:
        """An attack on this subject. The draws have the same order whatever there is to choose from. The last
        one, of the text encoder, is left out where none is trained."""
        subject, s = target.subject, self.settings
        identifier = _one([subject.identifier, *s.attack_identifiers], generator)
        template = _one(s.attack_prompts, generator)
        rate = _one(s.attack_rates, generator) * s.attack_learning_rate
        rank = _one(s.attack_ranks or (0,), generator)
        if float(torch.rand((), generator=generator)) >= s.attack_low_rank:
            rank = 0
        share = s.attack_text_encoder
        reads = bool(share) and float(torch.rand((), generator=generator)) < share
        named = replace(subject, identifier=identifier)
        prompt, of_class = named.prompt(template), named.prompt(template, of_class=True)
        c = self.model.condition([prompt, of_class])
        return Attack(
            target, named, prompt, of_class, c[:1], c[1:], rate * (s.attack_low_rank_rate if rank else 1.0),
            rank, text_encoder=reads and not rank,
        )  # fmt: skip


def check_prompts(
    model: TextToImage, subjects: Sequence[ProtectedSubject], settings: ImmunizeSettings,
    prompts: Sequence[str],
) -> None:  # fmt: skip
    """UsageError if a prompt has no {} for a name, or is too long for the model with an attacker's
    identifier."""
    for one in subjects:
        for named in _named(one.subject, settings):
            for template in prompts:
                if reason := model.conditioner.too_long(named.prompt(template)):
                    raise UsageError(reason)


def every_prompt(subjects: Sequence[Subject], settings: ImmunizeSettings) -> list[str]:
    """The prompts of simulated attacks and of what is diverted, under the subjects' names and the class's."""
    templates = [*settings.attack_prompts, *settings.places]
    return [
        named.prompt(template, of_class=of_class)
        for one in subjects for named in _named(one, settings) for template in templates
        for of_class in (False, True)
    ]  # fmt: skip


def _named(subject: Subject, settings: ImmunizeSettings) -> list[Subject]:
    """The subject under each attacker's identifier."""
    every = (subject.identifier, *settings.attack_identifiers)
    return [replace(subject, identifier=identifier) for identifier in every]


def _one(choices: Sequence[T], generator: torch.Generator) -> T:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def backward(model: TextToImage, loss: Tensor, settings: ImmunizeSettings, precision: str) -> None:
    """loss.backward(). Checkpointing recomputes activations, which needs the precision and the attention of
    the forward pass."""
    with model.autocast(precision) if settings.checkpointing else nullcontext():
        torch.autograd.backward(loss)


class Attacker:
    """Fine-tunes `model` in place, step by step, with a fresh AdamW for each attack.

    base: what a full attack trains: all weights of the denoiser, without those of an adapter that it has. A
    low-rank attack trains an adapter of its own, which `begin` adds and `end` removes; all other weights stay
    as they are. Where attacks train the text encoder too, `model` must own its text encoder; its weights are
    restored after each attack.
    """

    def __init__(
        self, model: TextToImage, base: Sequence[Tensor], settings: ImmunizeSettings, precision: str
    ) -> None:
        self.model, self.base, self.settings, self.precision = model, list(base), settings, precision
        reads = settings.attack_text_encoder > 0
        self.encoder: list[Tensor] = list(model.conditioner.parameters()) if reads else []
        self._encoder_before = [p.detach().clone() for p in self.encoder]
        self.trained: list[Tensor] = []
        self.steps = 0
        self._attack: Attack | None = None
        self._full: torch.optim.Optimizer | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def attack(self) -> Attack:
        """The current attack."""
        assert self._attack is not None, "begin() comes first"
        return self._attack

    def begin(self, attack: Attack, seed: int) -> None:
        """A new attack, from the weights as they are. seed: of the adapter, if there is one."""
        self.end()
        self._attack, self.steps = attack, 0
        if attack.rank:
            from unlikeness.diffusion.lora import add_lora

            self.trained = list(add_lora(self.model, rank=attack.rank, seed=seed, name=_ADAPTER))
            self._optimizer = self._adamw(self.trained)
            return
        self.trained = self.base + self.encoder if attack.text_encoder else self.base
        if self._full is None:  # the optimizer passes over a text encoder without a gradient
            self._full = self._adamw(self.base + self.encoder)
        self._full.state.clear()  # fresh
        for group in self._full.param_groups:
            group["lr"] = attack.learning_rate
        self._optimizer = self._full

    def _adamw(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        s, rate = self.settings, self.attack.learning_rate
        return adamw(parameters, lr=rate, weight_decay=s.weight_decay, eight_bit=s.eight_bit_adam)

    def end(self) -> None:
        """Remove an adapter without merging it, and restore the text encoder."""
        if self._attack is not None and self._attack.text_encoder:
            with torch.no_grad():
                for p, was in zip(self.encoder, self._encoder_before, strict=True):
                    p.copy_(was)
        if self._attack is not None and self._attack.rank:
            from unlikeness.diffusion.lora import remove_lora

            remove_lora(self.model, _ADAPTER)
        self._attack = None

    def step(self, generator: torch.Generator) -> Tensor:
        """One personalization step; returns the loss L_per before it, detached, and leaves the (clipped)
        gradient in place."""
        assert self._optimizer is not None, "begin() comes first"
        s, attack = self.settings, self.attack
        for p in (*self.model.denoiser.parameters(), *self.encoder):
            p.requires_grad_(False)
        for p in self.trained:
            p.requires_grad_(True)
        z0, z0_class = attack.target.data.draw(self.steps, s.attack_batch_size, generator)
        with self.model.autocast(self.precision):
            c_V, c_class = attack.read(self.model, grad=True)
            loss = personalization_loss(
                self.model, z0, c_V, z0_class if s.attack_prior_weight else None, c_class,
                prior_weight=s.attack_prior_weight, generator=generator,
            )  # fmt: skip
        backward(self.model, loss, s, self.precision)
        if s.attack_clip:
            torch.nn.utils.clip_grad_norm_(self.trained, s.attack_clip)
        self._optimizer.step()
        self.steps += 1
        return loss.detach()

    def clear(self) -> None:
        """Forget the gradients of everything that the attacker trains."""
        for p in self.trained:
            p.grad = None

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Inside, the denoiser predicts as if it had no adapter of the attack."""
        if self._attack is None or not self._attack.rank:
            yield
            return
        from unlikeness.diffusion.lora import use_lora

        names = list(self.model.denoiser.peft_config)
        use_lora(self.model, *(name for name in names if name != _ADAPTER))
        yield
        use_lora(self.model, *names)
