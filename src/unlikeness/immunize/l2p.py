"""Learning to protect (L2P, Alg. 1 of APDM): gradients gathered along simulated attacks.

One outer step: θ' <- θ; for N_per steps, θ' is personalized and then ∇L_protect at the new θ' is added up;
finally θ takes one AdamW step with the sum. Three things are ours. With `depth` an attack goes on for several
outer steps, its distance from θ carried along, so that late points of long attacks are met at the cost of
short ones. With `from_start` the first gradient of an attack on a protected subject is taken at θ, before the
attack's first step. And `preserve` adds a gradient at θ itself that holds everything else in place.

Memory: the U-Net holds θ'; θ, its gradient and AdamW's two moments come on top, and those of the simulated
attacker. Nothing is copied afresh in a step, and the sum is formed in the gradients themselves. Where no
attack is simulated there is no θ', and the U-Net holds θ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.diffusion.devices import training_precision
from unlikeness.immunize.attackers import Attack, Mixture
from unlikeness.immunize.batch import Rows, ask, wide
from unlikeness.immunize.data import Kept
from unlikeness.immunize.preservation import Preserve
from unlikeness.immunize.registry import Defence
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.immunize.simulated import Simulated, backward
from unlikeness.immunize.turns import turn
from unlikeness.immunize.unprotected import Bystanders

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["L2P", "trainable"]

_NAMED = {"all": "", "attention": ".attn", "cross-attention": ".attn2."}


def trainable(settings: ImmunizeSettings, name: str) -> bool:
    """Whether the weight of this name in the U-Net is among those that `settings.train` names."""
    return _NAMED[settings.train] in f".{name}"


def _shared(p: Tensor, other: Tensor | None) -> Tensor:
    """What p is now: the original's own tensor where that is the same, else a copy."""
    if other is not None and other.dtype == p.dtype and torch.equal(other, p):
        return other
    return p.detach().clone()


class L2P:
    """One outer step as `training.train` takes it: (index, generator) -> loss, with the gradient in place.

    Args:
        working: the model that is trained; between `__call__`s its U-Net holds θ' or θ' − θ, and no model.
            `finish` writes θ into it.
        original: φ, never changed.
        kept: the protected subjects, which take turns (`turns`), with bystanders between them.
    """

    def __init__(
        self,
        working: TextToImage,
        original: TextToImage,
        defence: Defence,
        kept: Sequence[Kept],
        *,
        preserve: Preserve | None = None,
    ) -> None:
        s = defence.settings
        self.working, self.original, self.defence, self.settings = working, original, defence, s
        self.kept, self.preserve = list(kept), preserve
        self.precision = training_precision(s.precision, working.device)
        named = dict(working.denoiser.named_parameters())
        self._moved = [p for name, p in named.items() if trainable(s, name)]
        self.theta = (
            [p.detach().clone() for p in self._moved] if s.inner_steps else self._moved  # nobody attacks
        )
        """The weights that will be released, of what is trained."""
        for theta in self.theta:
            theta.requires_grad_(True)
        origin = dict(original.denoiser.named_parameters())
        self._rest = [
            (p, _shared(p, origin.get(name))) for name, p in named.items() if not trainable(s, name)
        ]
        self.bystanders = Bystanders(original, s, self.precision)
        self._side: Defence | Bystanders = defence
        self.mixture = Mixture(working, self.kept, s)
        self.attacker = Simulated(working, list(named.values()), s, self.precision)
        self.attack_losses: list[float] = []
        """L_per of the attacker at each of its steps in the last outer step."""

    def __call__(self, index: int, generator: torch.Generator) -> Tensor:
        """Accumulate the gradient of outer step `index` in θ; returns the mean protective loss.

        The result is a leaf without a graph, so that a backward pass through it adds nothing.
        """
        s = self.settings
        if index % s.episode == 0:
            self._restart(index, generator)
        else:
            self._add(1.0)
        attack = self.attacker.attack if s.inner_steps else self._draw(index, generator)
        points = max(s.inner_steps, 1)
        drawn: list[Rows] = []
        if not s.text_encoder:
            drawn = self._rows(attack, points, generator)
        self.attack_losses = []
        total = 0.0
        for point in range(points):
            for _ in range(self._steps_before(index, point)):
                self._attacks(generator)
            if s.text_encoder:  # prompts are read by the encoder as the attack has made it
                drawn += self._rows(attack, 1, generator)
            total += self._protects(drawn[point])
        if self.preserve is not None:
            with self._at_theta():
                total += points * self._preserves(generator)
        self._add(-1.0)
        return torch.tensor(total / points, requires_grad=True)

    def _steps_before(self, index: int, point: int) -> int:
        """How far the attack goes on before this gradient of an outer step."""
        s = self.settings
        begins = index % s.episode == 0 and point == 0 and self._side is self.defence
        return 0 if not s.inner_steps or (s.from_start and begins) else s.stride

    def _rows(self, attack: Attack, count: int, generator: torch.Generator) -> list[Rows]:
        """So many batches, with what the original answers to all of them together."""
        drawn = [self._side.rows(self.working, attack, generator) for _ in range(count)]
        return ask(self.original, drawn, self.precision)

    @torch.no_grad()
    def finish(self) -> TextToImage:
        """θ, as a frozen model."""
        self.attacker.end()
        self._write()
        if self.settings.checkpointing:
            self.working.denoiser.disable_gradient_checkpointing()
        self.working.denoiser.requires_grad_(False).eval()
        return self.working

    def _draw(self, index: int, generator: torch.Generator) -> Attack:
        """An attacker of whose turn it is; and whose gradient is taken along the attack."""
        whose = turn(self.settings, index // self.settings.episode, len(self.kept))
        kept = self.kept[whose.subject]
        self._side = self.defence
        if whose.bystander:
            self._side, kept = self.bystanders, self.bystanders.draw(kept, generator)
        return self.mixture.draw(kept, generator)

    @torch.no_grad()
    def _restart(self, index: int, generator: torch.Generator) -> None:
        """θ' <- θ, and a new attacker."""
        self.attacker.end()
        self._write()
        if self.settings.inner_steps:
            attack = self._draw(index, generator)
            seed = int(torch.randint(2**31, (), generator=generator))
            self.attacker.begin(attack, seed)

    @torch.no_grad()
    def _write(self) -> None:
        for p, value in (*zip(self._moved, self.theta, strict=True), *self._rest):
            p.copy_(value)

    @torch.no_grad()
    def _add(self, sign: float) -> None:
        """Between outer steps the U-Net holds θ' − θ, so that an attack moves along with θ."""
        if self.settings.episode > 1:
            torch._foreach_add_([p.data for p in self._moved], [t.data for t in self.theta], alpha=sign)

    def _attacks(self, generator: torch.Generator) -> None:
        leak = self.settings.leak
        self.attack_losses.append(float(self.attacker.step(generator, keep_gradient=leak)))
        if leak:
            for p, theta in zip(self._moved, self.theta, strict=True):
                if p.grad is not None:
                    theta.grad = p.grad if theta.grad is None else theta.grad.add_(p.grad)
            for p in self.attacker.trained:
                p.grad = None

    def _protects(self, rows: Rows) -> float:
        """Add ∇L_protect at θ' to the gradient of θ."""
        for p, _ in self._rest:
            p.requires_grad_(False)
        with self._gradients():
            with self.working.autocast(self.precision):
                loss = self._side.loss(wide(self.working.predict(rows.z_t, rows.t, rows.c)), rows)
            backward(self.working, loss, self.settings, self.precision)
        self.attacker.clear()
        return float(loss.detach())

    def _preserves(self, generator: torch.Generator) -> float:
        assert self.preserve is not None
        with self.working.autocast(self.precision):
            loss = self.preserve(self.working, self.original, generator)
            scaled = loss * (self.settings.preserve_weight * max(self.settings.inner_steps, 1))
        with self._gradients():
            backward(self.working, scaled, self.settings, self.precision)
        return float(loss.detach()) * self.settings.preserve_weight

    @contextmanager
    def _gradients(self) -> Iterator[None]:
        """Inside, a backward pass adds to the gradient of θ."""
        for p, theta in zip(self._moved, self.theta, strict=True):
            p.requires_grad_(True)
            p.grad = theta.grad
        yield
        for p, theta in zip(self._moved, self.theta, strict=True):
            if p is not theta:
                theta.grad, p.grad = p.grad, None

    @contextmanager
    def _at_theta(self) -> Iterator[None]:
        """Inside, the U-Net holds θ, in what is not trained too, and `theta` the attacked weights: they
        change places, and nothing is copied."""
        attacked = [p.data for p, _ in self._rest]
        self._swap()
        for p, value in self._rest:
            p.data = value.data
        with self.attacker.without_adapter():
            yield
        self._swap()
        for (p, _), data in zip(self._rest, attacked, strict=True):
            p.data = data

    def _swap(self) -> None:
        for p, theta in zip(self._moved, self.theta, strict=True):
            p.data, theta.data = theta.data, p.data
