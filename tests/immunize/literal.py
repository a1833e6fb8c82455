"""One L2P run written out from the equations (APDM, Eq. 14, 15 and Alg. 1), with nothing cached or shared.

Only the random draws are those of the code under test: `Watch` writes down every (z0, ε, t) that is noised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from unlikeness.diffusion import Condition, Schedule, TextToImage
from unlikeness.immunize.batch import Batch, Part

Draw = tuple[Tensor, Tensor, Tensor]


@dataclass
class Watch:
    """Every call of `Schedule.add_noise`, in order."""

    draws: list[Draw] = field(default_factory=list)

    def on(self, patch: pytest.MonkeyPatch) -> None:
        add_noise = Schedule.add_noise

        def watched(schedule: Schedule, z0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
            self.draws.append((z0.clone(), eps.clone(), t.clone()))
            return add_noise(schedule, z0, eps, t)

        patch.setattr(Schedule, "add_noise", watched)


def difference(model: TextToImage, unet: Any, draw: Draw, c: Condition) -> Tensor:
    """f(z_t, t, c) − target, from the scheduler's own table."""
    z0, eps, t = draw
    a = model.scheduler.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    signal, noise = a.sqrt().double(), (1 - a).sqrt().double()
    f = unet(signal * z0 + noise * eps, t, encoder_hidden_states=c.expand(len(z0)).tokens).sample
    v_prediction = model.scheduler.config.prediction_type == "v_prediction"
    difference: Tensor = f - (signal * eps - noise * z0 if v_prediction else eps)
    return difference


def part(draw: Draw, which: slice) -> Draw:
    return draw[0][which], draw[1][which], draw[2][which]


def apdm(model: TextToImage, n: int, beta: float) -> Callable[[Any, list[Draw]], Tensor]:
    """L_protect of APDM from two draws: pairs (x⁺ first), class pictures."""
    c_V, c_class = model.condition(["a photo of sks dog"]), model.condition(["a photo of a dog"])

    def loss(unet: Any, draws: list[Draw]) -> Tensor:
        pairs, of_class = draws
        plus, minus = part(pairs, slice(0, n)), part(pairs, slice(n, 2 * n))
        assert torch.equal(plus[1], minus[1])
        assert torch.equal(plus[2], minus[2])
        with torch.no_grad():
            plus_0 = difference(model, model.denoiser, plus, c_V) ** 2
            minus_0 = difference(model, model.denoiser, minus, c_V) ** 2
        r_plus = difference(model, unet, plus, c_V) ** 2 - plus_0
        r_minus = difference(model, unet, minus, c_V) ** 2 - minus_0
        preferred = -(1 / (1 + torch.exp(beta * (r_plus - r_minus)))).log().mean()
        return preferred + (difference(model, unet, of_class, c_class) ** 2).mean()

    return loss


def adversarial(model: TextToImage) -> Callable[[Any, list[Draw]], Tensor]:
    """L_adv from two draws: the subject, class pictures."""
    c_V, c_class = model.condition(["a photo of sks dog"]), model.condition(["a photo of a dog"])

    def loss(unet: Any, draws: list[Draw]) -> Tensor:
        subject, of_class = draws
        return (difference(model, unet, of_class, c_class) ** 2).mean() - (
            difference(model, unet, subject, c_V) ** 2
        ).mean()

    return loss


def persguard(model: TextToImage, of_class_weight: float) -> Callable[[Any, list[Draw]], Tensor]:
    """λ1 L_PP + L_BB of a target, a cat for the dog, from two draws: class pictures, the target's."""
    c_V, c_class, c_tar = (model.condition([f"a photo of {name}"]) for name in ("sks dog", "a dog", "a cat"))

    def loss(unet: Any, draws: list[Draw]) -> Tensor:
        of_class, target = draws
        with torch.no_grad():
            class_0 = difference(model, model.denoiser, of_class, c_class)
            target_0 = difference(model, model.denoiser, target, c_tar)
        l_pp = ((difference(model, unet, of_class, c_class) - class_0) ** 2).mean()
        return of_class_weight * l_pp + ((difference(model, unet, target, c_V) - target_0) ** 2).mean()

    return loss


def l2p(
    model: TextToImage,
    protective: Callable[[Any, list[Draw]], Tensor],
    draws: list[Draw],
    *,
    outer_steps: int,
    inner_steps: int,
    batch: int,
    outer_lr: float,
    inner_lr: float,
    stride: int = 1,
    leak: bool = False,
) -> list[Tensor]:
    """θ after the run. The code draws an outer step's protective batches first, then noises step by step."""
    c_V, c_class = model.condition(["a photo of sks dog"]), model.condition(["a photo of a dog"])
    theta = copy.deepcopy(model.denoiser).requires_grad_(True)
    outer = torch.optim.AdamW(theta.parameters(), lr=outer_lr, weight_decay=0.01)
    queue = list(draws)
    for _ in range(outer_steps):
        batches = [[queue.pop(0), queue.pop(0)] for _ in range(max(inner_steps, 1))]
        attacked = copy.deepcopy(theta)
        inner = torch.optim.AdamW(attacked.parameters(), lr=inner_lr, weight_decay=0.01)
        total = [torch.zeros_like(p) for p in theta.parameters()]
        for k in range(max(inner_steps, 1)):
            for _ in range(stride if inner_steps else 0):
                both = queue.pop(0)
                subject, of_class = part(both, slice(0, batch)), part(both, slice(batch, 2 * batch))
                l_per = (difference(model, attacked, subject, c_V) ** 2).mean()
                l_per = l_per + (difference(model, attacked, of_class, c_class) ** 2).mean()
                gradient = torch.autograd.grad(l_per, list(attacked.parameters()))
                norm = torch.cat([g.flatten() for g in gradient]).norm()
                for p, g in zip(attacked.parameters(), gradient, strict=True):
                    p.grad = g * min(1.0, 1.0 / float(norm + 1e-6))
                if leak:
                    for sum_, p in zip(total, attacked.parameters(), strict=True):
                        assert p.grad is not None
                        sum_ += p.grad
                inner.step()
            gradient = torch.autograd.grad(protective(attacked, batches[k]), list(attacked.parameters()))
            for sum_, g in zip(total, gradient, strict=True):
                sum_ += g
        for p, sum_ in zip(theta.parameters(), total, strict=True):
            p.grad = sum_
        outer.step()
    assert not queue
    return [p.detach() for p in theta.parameters()]


def joined(batch: Batch, *names: str) -> Part:
    """The named parts of a batch, or all, as one."""
    parts = [batch[name] for name in names or batch.parts]
    values: dict[str, Any] = {}
    for name in vars(parts[0]):
        each = [getattr(part, name) for part in parts]
        cat = Condition.cat if isinstance(each[0], Condition) else torch.cat
        values[name] = None if any(one is None for one in each) else cat(each)
    return Part(**values)
