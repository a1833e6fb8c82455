"""Learning to protect (L2P, Alg. 1 of APDM): gradients gathered along simulated attacks.

One outer step: θ' <- θ; for N_per steps, θ' is personalized and then ∇L_protect at the new θ' is added up;
finally θ takes one AdamW step with the sum. Three things are ours. With `attack_depth` an attack goes on for
several outer steps, its distance from θ carried along, so that late points of long attacks are met at the
cost of short ones. With `attack_from_start` the first gradient of an attack on a protected subject is taken
at θ. And `preservation` adds a gradient at θ itself.

Memory: θ, its gradient and AdamW's two moments come on top of the network with θ', and of what the simulated
attacker needs. Nothing is copied afresh in a step, and the sum is formed in the gradients themselves. With
`rank` θ is an adapter of the network (θ = φ + BA), which attacks leave as it is: they move the weights below
it, or train an adapter beside it. If all of them do the latter, the network shares its weights with φ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.diffusion.devices import training_precision
from unlikeness.immunize import Defence
from unlikeness.immunize.attackers import Attack, Attacker, Attackers, backward, turn
from unlikeness.immunize.batch import Batch, predictions, with_references
from unlikeness.immunize.data import ProtectedSubject
from unlikeness.immunize.preservation import Preservation
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.immunize.unprotected import Unprotected

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["L2P", "Weights", "trainable"]


def trainable(model: TextToImage, settings: ImmunizeSettings, name: str) -> bool:
    """Whether the released model has its own weight of this name in the denoiser: one that `settings.train`
    includes, or with `rank` one of the adapter."""
    return _of_adapter(name) if settings.rank else model.family.layers[settings.train] in f".{name}"


def _of_adapter(name: str) -> bool:
    return ".lora_" in name


class Weights:
    """Two sets of weights for one denoiser: attacked (θ') and released (θ).

    The denoiser holds θ', and θ inside `released_in_network()`. Without attacks there is no θ'.

    Attributes:
        attacked: the denoiser's own parameters, those that are trained.
        released: θ, with its gradient, of the same; the very parameters where nothing attacks them.
        fixed: (parameter, value) of those that are not trained. Attacks move them too, unless they are the
            original's very own.
    """

    def __init__(self, working: TextToImage, original: TextToImage, settings: ImmunizeSettings) -> None:
        named, origin = (dict(model.denoiser.named_parameters()) for model in (working, original))
        trained = {name for name in named if trainable(working, settings, name)}
        self.attacked = [p for name, p in named.items() if name in trained]
        self.released: list[Tensor] = self.attacked
        if settings.inner_steps and not settings.rank:
            self.released = [p.detach().clone() for p in self.attacked]
        for theta in self.released:
            theta.requires_grad_(True)
        below = {name: origin.get(name.replace(".base_layer.", ".")) for name in named if name not in trained}
        self.fixed = [(named[name], _shared(named[name], value)) for name, value in below.items()
                      if named[name] is not value]  # fmt: skip

    @torch.no_grad()
    def restart(self) -> None:
        """θ' <- θ."""
        for p, value in (*zip(self.attacked, self.released, strict=True), *self.fixed):
            p.copy_(value)

    @torch.no_grad()
    def add_released(self, sign: float) -> None:
        """θ' <- θ' + sign · θ, where θ is not the network's own."""
        if self.released is self.attacked:
            return
        torch._foreach_add_([p.data for p in self.attacked], [p.data for p in self.released], alpha=sign)

    @contextmanager
    def gradient_for_released(self) -> Iterator[None]:
        """Inside, a backward pass through the network adds to the gradient of θ, whatever it holds."""
        for p, _ in self.fixed:
            p.requires_grad_(False)
        for p, theta in zip(self.attacked, self.released, strict=True):
            p.requires_grad_(True)
            p.grad = theta.grad
        yield
        for p, theta in zip(self.attacked, self.released, strict=True):
            if p is not theta:
                theta.grad, p.grad = p.grad, None

    @contextmanager
    def released_in_network(self) -> Iterator[None]:
        """Inside, the network holds θ, in its fixed weights too; nothing is copied."""
        pairs = [*zip(self.attacked, self.released, strict=True), *self.fixed]
        attacked = [p.data for p, _ in pairs]
        for p, value in pairs:
            p.data = value.data
        yield
        for (p, _), data in zip(pairs, attacked, strict=True):
            p.data = data


def _shared(p: Tensor, other: Tensor | None) -> Tensor:
    """The value of p: the original's own tensor where that is equal, else a copy."""
    if other is not None and other.dtype == p.dtype and torch.equal(other, p):
        return other
    return p.detach().clone()


class L2P:
    """One outer step as `training.train` takes it: (index, generator) -> loss, with the gradient in place.

    Args:
        working: the model that is trained. Between calls its denoiser holds θ', or θ' − θ where attacks go on
            for several outer steps. `finish` writes θ into it.
        original: φ, never changed.
        subjects: the protected subjects, attacked in turn (`attackers.turn`).
    """

    def __init__(
        self,
        working: TextToImage,
        original: TextToImage,
        defence: Defence,
        subjects: Sequence[ProtectedSubject],
        *,
        preservation: Preservation | None = None,
    ) -> None:
        s = defence.settings
        self.working, self.original, self.defence, self.settings = working, original, defence, s
        self.subjects, self.preservation = list(subjects), preservation
        self.precision = training_precision(s.precision, working.device)
        self.weights = Weights(working, original, s)
        self.unprotected = Unprotected(original, s, self.precision)
        self.attackers = Attackers(working, self.subjects, s)
        base = [p for name, p in working.denoiser.named_parameters() if not _of_adapter(name)]
        self.attacker = Attacker(working, base, s, self.precision)
        self._protective: Defence | Unprotected = defence
        """Whose batches and loss the current attack needs."""

    @property
    def theta(self) -> list[Tensor]:
        """The released weights, of what is trained."""
        return self.weights.released

    def __call__(self, index: int, generator: torch.Generator) -> Tensor:
        """Accumulate the gradient of outer step `index` in θ; returns the mean protective loss.

        The result is a leaf without a graph, so that a backward pass through it adds nothing.
        """
        s = self.settings
        if index % s.episode == 0:
            self._restart(index, generator)
        else:
            self.weights.add_released(1.0)
        attack = self.attacker.attack if s.inner_steps else self._draw(index, generator)
        points = max(s.inner_steps, 1)
        batches: list[Batch] = []
        if not s.attack_text_encoder:
            batches = self._batches(attack, points, generator)
        total = 0.0
        for point in range(points):
            for _ in range(self._steps_before(index, point)):
                self.attack_step(generator)
            if s.attack_text_encoder:  # conditions are those of the attacked text encoder
                batches += self._batches(attack, 1, generator)
            total += self._protects(batches[point])
        if self.preservation is not None:
            with self.weights.released_in_network(), self.attacker.without_adapter():
                total += points * self._preserves(generator)
        if s.episode > 1:
            self.weights.add_released(-1.0)  # so that the attack moves along with θ
        return torch.tensor(total / points, requires_grad=True)

    def attack_step(self, generator: torch.Generator) -> None:
        """One step of the simulated attacker."""
        self.attacker.step(generator)
        self.attacker.clear()

    @torch.no_grad()
    def finish(self) -> TextToImage:
        """θ, as a frozen model; with `rank` its denoiser has the adapter."""
        self.attacker.end()
        self.weights.restart()
        if self.settings.checkpointing:
            self.working.denoiser.disable_gradient_checkpointing()
        self.working.denoiser.requires_grad_(False).eval()
        return self.working

    def _steps_before(self, index: int, point: int) -> int:
        """Attack steps before this gradient of an outer step."""
        s = self.settings
        begins = index % s.episode == 0 and point == 0 and self._protective is self.defence
        return 0 if not s.inner_steps or (s.attack_from_start and begins) else s.attack_stride

    def _batches(self, attack: Attack, count: int, generator: torch.Generator) -> list[Batch]:
        """Batches with the original's predictions for all of them together."""
        drawn = [self._protective.batch(self.working, attack, generator) for _ in range(count)]
        return with_references(self.original, drawn, self.precision)

    def _draw(self, index: int, generator: torch.Generator) -> Attack:
        """The attack of this outer step by schedule; sets whose loss is taken along it."""
        now = turn(self.settings, index // self.settings.episode, len(self.subjects))
        target = self.subjects[now.subject]
        self._protective = self.defence
        if now.unprotected:
            self._protective, target = self.unprotected, self.unprotected.draw(target, generator)
        return self.attackers.draw(target, generator)

    @torch.no_grad()
    def _restart(self, index: int, generator: torch.Generator) -> None:
        """θ' <- θ, and a new attack."""
        self.attacker.end()
        self.weights.restart()
        if self.settings.inner_steps:
            attack = self._draw(index, generator)
            seed = int(torch.randint(2**31, (), generator=generator))
            self.attacker.begin(attack, seed)

    def _protects(self, batch: Batch) -> float:
        """Add ∇L_protect at θ' to the gradient of θ."""
        with self.weights.gradient_for_released():
            with self.working.autocast(self.precision):
                loss = self._protective.loss(predictions(self.working, batch), batch)
            backward(self.working, loss, self.settings, self.precision)
        self.attacker.clear()
        return float(loss.detach())

    def _preserves(self, generator: torch.Generator) -> float:
        """Add the gradient of preservation at θ, which is in the network."""
        assert self.preservation is not None
        weight = self.settings.preserve_weight
        with self.weights.gradient_for_released():
            with self.working.autocast(self.precision):
                loss = self.preservation(self.working, self.original, generator)
            scaled = loss * (weight * max(self.settings.inner_steps, 1))
            backward(self.working, scaled, self.settings, self.precision)
        return float(loss.detach()) * weight
