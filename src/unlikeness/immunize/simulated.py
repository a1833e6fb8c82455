"""The simulated attacker: personalization steps on a working copy of the U-Net."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.immunize.attackers import Attack
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.personalize.objective import personalization_loss
from unlikeness.training import adamw

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Simulated", "backward"]


def backward(model: TextToImage, loss: Tensor, settings: ImmunizeSettings, precision: str) -> None:
    """loss.backward(). What checkpointing computes again must be computed as it was: in the same precision
    and with the same attention."""
    with model.autocast(precision) if settings.checkpointing else nullcontext():
        torch.autograd.backward(loss)


class Simulated:
    """Fine-tunes `model` in place, step by step, with a fresh AdamW for each attack.

    base: all weights of the U-Net. An attack with low-rank updates trains an adapter, which is put in when it
    begins and taken out when it ends; the weights below it stay as they are. Where attacks train the text
    encoder too, `model` has one of its own, which is as it was again when they end.
    """

    def __init__(
        self, model: TextToImage, base: Sequence[Tensor], settings: ImmunizeSettings, precision: str
    ) -> None:
        self.model, self.base, self.settings, self.precision = model, list(base), settings, precision
        self.encoder: list[Tensor] = list(model.conditioner.parameters()) if settings.text_encoder else []
        self._encoder_before = [p.detach().clone() for p in self.encoder]
        self.trained: list[Tensor] = []
        self.steps = 0
        self._attack: Attack | None = None
        self._full: torch.optim.Optimizer | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def attack(self) -> Attack:
        """The one that is being followed."""
        assert self._attack is not None, "begin() comes first"
        return self._attack

    def begin(self, attack: Attack, seed: int) -> None:
        """A new attack, from the weights as they are. seed: of the adapter, if there is one."""
        self.end()
        self._attack, self.steps = attack, 0
        s = self.settings
        if attack.rank:
            from unlikeness.diffusion.lora import add_lora

            self.trained = list(add_lora(self.model, rank=attack.rank, seed=seed))
            self._optimizer = adamw(self.trained, lr=attack.learning_rate, weight_decay=s.weight_decay)
            return
        self.trained = self.base + self.encoder if attack.text_encoder else self.base
        if self._full is None:  # a text encoder without a gradient stays out of its steps
            every = self.base + self.encoder
            self._full = adamw(every, lr=attack.learning_rate, weight_decay=s.weight_decay)
        for state in self._full.state.values():
            for value in state.values():
                value.zero_()  # as fresh, in the memory that is there
        for group in self._full.param_groups:
            group["lr"] = attack.learning_rate
        self._optimizer = self._full

    def end(self) -> None:
        """Take an adapter out, unmerged; the text encoder is as it was."""
        if self._attack is not None and self._attack.text_encoder:
            with torch.no_grad():
                for p, was in zip(self.encoder, self._encoder_before, strict=True):
                    p.copy_(was)
        if self._attack is not None and self._attack.rank:
            from unlikeness.diffusion.lora import remove_lora

            remove_lora(self.model)
        self._attack = None

    def step(self, generator: torch.Generator, *, keep_gradient: bool = False) -> Tensor:
        """One personalization step (METHODS: L_per); returns the loss before it, detached.

        All gradients are cleared afterwards, unless `keep_gradient`.
        """
        assert self._optimizer is not None, "begin() comes first"
        s, attack = self.settings, self.attack
        for p in (*self.base, *self.encoder):
            p.requires_grad_(False)
        for p in self.trained:
            p.requires_grad_(True)
        z0, z0_class = attack.kept.material.draw(self.steps, s.attack_batch_size, generator)
        with self.model.autocast(self.precision):
            c_V, c_class = attack.read(self.model, grad=True)
            loss = personalization_loss(
                self.model,
                z0,
                c_V,
                z0_class if s.prior_weight else None,
                c_class,
                prior_weight=s.prior_weight,
                generator=generator,
            )
        backward(self.model, loss, s, self.precision)
        if s.attack_clip:
            torch.nn.utils.clip_grad_norm_(self.trained, s.attack_clip)
        self._optimizer.step()
        self.steps += 1
        if not keep_gradient:
            self.clear()
        return loss.detach()

    def clear(self) -> None:
        """Forget the gradients of all that the attacker trains."""
        for p in self.trained:
            p.grad = None

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Inside, the U-Net answers as if there were no adapter."""
        if self._attack is None or not self._attack.rank:
            yield
            return
        self.model.denoiser.disable_adapters()
        yield
        self.model.denoiser.enable_adapters()
