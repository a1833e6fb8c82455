"""One loop for everything that trains: steps, clipping, learning rates, averages, checkpoints, resume.

A step gets its index and a generator that is derived from (seed, index) alone. So no state of randomness is
stored, and a run that was killed and resumed ends like an uninterrupted one: bit by bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness.checkpoints import load_checkpoint, save_checkpoint
from unlikeness.eight_bit import adamw8
from unlikeness.errors import NotFiniteError, UsageError
from unlikeness.progress import Progress, Silent
from unlikeness.seeds import step_generator
from unlikeness.tensors import all_finite

__all__ = [
    "Ema", "Step", "Trained", "adamw", "constant", "cosine", "linear", "train", "trapezoid",
]  # fmt: skip

PAUSE = 30.0
"""Seconds from one checkpoint to the next where steps are slow; at least 50 times what saving took."""

Step = Callable[[int, torch.Generator], Tensor]
"""(index, generator) -> the scalar loss of that step, with its graph."""

Rates = Callable[[int], float]
"""index of a step -> factor of the optimizer's learning rates."""


def constant(*, warmup: int = 0) -> Rates:
    """Rises linearly over `warmup` steps, then stays 1."""
    return lambda index: min((index + 1) / warmup, 1.0) if warmup else 1.0


def linear(steps: int, *, warmup: int = 0) -> Rates:
    """Rises over `warmup` steps, then falls linearly to 0 at `steps`."""
    rise = constant(warmup=warmup)
    return lambda index: rise(index) * min(max((steps - index) / max(steps - warmup, 1), 0.0), 1.0)


def cosine(steps: int, *, warmup: int = 0, floor: float = 0.0) -> Rates:
    """Rises over `warmup` steps, then falls by half a cosine from 1 to `floor` at `steps`."""
    rise = constant(warmup=warmup)

    def factor(index: int) -> float:
        part = min(max((index - warmup) / max(steps - warmup, 1), 0.0), 1.0)
        return rise(index) * (floor + (1 - floor) * (1 + math.cos(math.pi * part)) / 2)

    return factor


def trapezoid(steps: int, *, warmup: int = 0, fall: float = 0.25) -> Rates:
    """Rises over `warmup` steps, stays 1, then falls linearly to 0 over the last `fall` of the steps."""
    rise = constant(warmup=warmup)
    return lambda index: rise(index) * min(max(steps - index, 0) / max(fall * steps, 1), 1.0)


def adamw(
    parameters: Sequence[Tensor], *, lr: float, weight_decay: float = 0.01, eight_bit: bool = False
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), fused: on a CPU a quarter of the time of the plain loop.

    eight_bit: with its moments in 8 bits (`eight_bit.adamw8`).
    """
    if eight_bit:
        return adamw8(parameters, lr=lr, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


class Ema:
    """The exponential moving average of parameters (Polyak & Juditsky 1992), to sample from.

    decay: share of the old average that each step keeps, in [0, 1). The first steps use (1 + n) / (10 + n)
    where that is less, so that the start soon has no weight.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"the decay of an average ({decay}) must be at least 0 and below 1")
        self.decay = decay
        self.updates = 0
        self.parameters = list(parameters)
        self.averages = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Add the present parameters to the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, p in zip(self.averages, self.parameters, strict=True):
            average.lerp_(p.detach(), 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters hold their averages."""
        kept = [p.detach().clone() for p in self.parameters]
        self.copy_to(self.parameters)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self.parameters, kept, strict=True):
                    p.copy_(value)

    @torch.no_grad()
    def copy_to(self, parameters: Sequence[Tensor]) -> None:
        """Write the averages into `parameters`."""
        for p, average in zip(parameters, self.averages, strict=True):
            p.copy_(average)


@dataclass(frozen=True)
class Trained:
    """The result of a run. losses: one a step of this run, which began at step `resumed_at`."""

    steps: int
    resumed_at: int
    losses: list[float] = field(repr=False)


def identity_of(seed: int, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The identity of a training, JSON-able, which its checkpoint must share."""
    return {"seed": seed, "settings": dict(settings or {})}


def train(
    step: Step,
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    seed: int,
    clip: float | None = 1.0,
    schedule: Rates | None = None,
    ema: Ema | None = None,
    checkpoint: Path | None = None,
    every: int = 500,
    whole: int = 1,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    description: str = "training",
    after: Callable[[int, float], None] | None = None,
) -> Trained:
    """Minimise `step`'s loss over `steps` steps in all, and resume from `checkpoint` if that file exists.

    Args:
        step: must draw all random numbers from its generator.
        parameters: those of the optimizer, in a fixed order.
        clip: largest L2 norm of the gradient over all parameters (None: unbounded).
        schedule: factor of the learning rate per step, such as `cosine(steps, warmup=100)`.
        ema: updated after every step.
        checkpoint: file for parameters, optimizer state and averages, replaced after `every` steps or half a
            minute, and at the end. An interruption loses only the steps since.
        whole: steps that share state which a checkpoint does not hold. It is replaced after multiples of this
            number only.
        settings: JSON-able; a checkpoint with other settings is refused.
        after: called with (steps done, loss) after each step.

    Raises:
        NotFiniteError: the loss, the gradient or, where they are kept, the weights are not finite.
        UnlikenessError: the checkpoint is damaged.
        UsageError: the checkpoint belongs to another run.
    """
    parameters = list(parameters)
    if not parameters:
        raise UsageError("nothing to train: no parameter was given")
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    identity = identity_of(seed, settings)
    start = 0
    if checkpoint is not None and checkpoint.exists():
        start = load_checkpoint(checkpoint, parameters, optimizer, ema, identity)
    progress = progress or Silent()
    progress.start(steps, description, "step", initial=min(start, steps))
    losses: list[float] = []
    saved, pause = start, time.monotonic() + PAUSE
    for index in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1.0 if schedule is None else schedule(index))
        optimizer.zero_grad(set_to_none=True)
        loss = step(index, step_generator(seed, index))
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            raise NotFiniteError(
                f"{description} diverged at step {index} (loss {value:g}, gradient norm {float(norm):g}); "
                "lower the learning rate"
                # At step 0 the training itself has not changed anything.
                + ("" if index else ", or give another model: this one's weights may be damaged")
            )
        optimizer.step()
        if ema is not None:
            ema.update()
        losses.append(value)
        due = index + 1 - saved >= every or time.monotonic() >= pause
        if checkpoint is not None and due and (index + 1) % whole == 0:
            _check_weights(parameters, description, index + 1)
            began = time.monotonic()
            save_checkpoint(checkpoint, index + 1, parameters, optimizer, ema, identity)
            saved, ended = index + 1, time.monotonic()
            pause = ended + max(PAUSE, 50 * (ended - began))
        progress.advance(loss=value)
        if after is not None:
            after(index + 1, value)
    optimizer.zero_grad(set_to_none=True)
    if start < steps:
        _check_weights(parameters, description, steps)
    if checkpoint is not None and saved < steps:
        save_checkpoint(checkpoint, steps, parameters, optimizer, ema, identity)
    progress.close()
    return Trained(max(start, steps), start, losses)


def _check_weights(parameters: Sequence[Tensor], description: str, steps: int) -> None:
    """NotFiniteError if a weight is NaN or infinite, so that no such checkpoint is kept."""
    if not all_finite(parameters):
        raise NotFiniteError(
            f"{description} diverged by step {steps} (its weights are not finite); lower the learning rate"
        )
