"""A dry run: calls everything in the real order on a stand-in network, and counts its passes exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.model import TextToImage
from unlikeness.diffusion.sampling import drawn
from unlikeness.immunize.attackers import turns
from unlikeness.immunize.l2p import L2P
from unlikeness.immunize.run import engine
from unlikeness.seeds import step_generator

if TYPE_CHECKING:
    from unlikeness.immunize import Defence
    from unlikeness.immunize.batch import Batch
    from unlikeness.subjects import Subject

__all__ = ["Count", "DryRun", "Passes", "Undrawn", "anew", "count"]


@dataclass(frozen=True)
class Passes:
    """Calls of a denoiser, and the pictures in all of them together."""

    calls: int = 0
    pictures: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.calls + other.calls, self.pictures + other.pictures)

    def __mul__(self, times: int) -> Passes:
        return Passes(self.calls * times, self.pictures * times)

    def __str__(self) -> str:
        return f"{self.pictures:,} pictures in {self.calls:,} calls"


@dataclass(frozen=True)
class Count:
    """The passes of a run, or of a part of it.

    Without a gradient: drawing, of class pictures and all else that is generated; original, the original
    model's predictions. With a gradient and one backward pass each: attack, of the simulated attackers;
    protect and preserve, for the released weights.
    """

    drawing: Passes = Passes()
    original: Passes = Passes()
    attack: Passes = Passes()
    protect: Passes = Passes()
    preserve: Passes = Passes()

    def __add__(self, other: Count) -> Count:
        return Count(**{name: one + getattr(other, name) for name, one in vars(self).items()})

    def __mul__(self, times: int) -> Count:
        return Count(**{name: one * times for name, one in vars(self).items()})

    @property
    def without_gradient(self) -> Passes:
        return self.drawing + self.original

    @property
    def with_gradient(self) -> Passes:
        return self.attack + self.protect + self.preserve

    def as_record(self) -> dict[str, Any]:
        """JSON-able: forward passes without a gradient, with one, and backward passes."""
        without, with_ = vars(self.without_gradient), vars(self.with_gradient)
        return {"forward": dict(without), "forward_with_gradient": dict(with_), "backward": dict(with_)}


class Undrawn(TextToImage):
    """The same model, but it generates black pictures, and encodes pictures as random latents."""

    def __init__(self, model: TextToImage, **parts: Any) -> None:
        own = {
            name: getattr(model, name)
            for name in (
                "autoencoder", "denoiser", "conditioner", "scheduler", "family", "defaults", "source",
                "carried",
            )
        }  # fmt: skip
        super().__init__(**{**own, **parts})
        self.model = model

    def generate(self, prompts: Sequence[str], *, seeds: Sequence[int], **how: Any) -> Tensor:
        """Black pictures."""
        return torch.zeros(1, 1, 1, 1).expand(len(seeds), 3, self.resolution, self.resolution)

    def encode_all(self, images: Tensor, *, batch_size: int = 8) -> Posterior:
        """Random latents, the same for each picture."""
        z0 = torch.randn((1, *self.latent_shape), generator=torch.Generator().manual_seed(0)).to(self.device)
        mean = z0.expand(len(images), -1, -1, -1)
        return Posterior(mean, torch.zeros_like(z0).expand_as(mean))


class _Counted(Undrawn):
    """A model whose denoiser is a stand-in of one weight, and counts. phase: what passes are counted as."""

    def __init__(self, model: TextToImage, phase: str) -> None:
        self.on = torch.device("cpu") if model.device.type == "meta" else model.device
        network: Any = torch.nn.Linear(1, 1, bias=False, device=self.on)
        network.config = model.denoiser.config  # which a family may read
        super().__init__(model, denoiser=network, conditioner=model.conditioner.bare())
        self.phase = phase
        self.passes: Counter[str] = Counter()
        self.pictures: Counter[str] = Counter()
        self.drawn: list[tuple[int, int]] = []
        """(pictures, solver steps) of each call of `generate`."""

    @property
    def device(self) -> torch.device:
        return self.on

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.model.latent_shape

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Inside, passes are counted as `phase`."""
        self.phase, before = phase, self.phase
        yield
        self.phase = before

    def condition(self, prompts: Sequence[str | None], *, grad: bool = False) -> Condition:
        """The model's own, which nothing trains; nothing for a model without weights."""
        if self.model.device.type == "meta":
            return Condition(torch.zeros(len(prompts), 1, 1))
        return self.model.condition(prompts)

    def predict(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Something of the right form."""
        self.passes[self.phase] += 1
        self.pictures[self.phase] += len(z_t)
        f: Tensor = z_t * self.denoiser.weight.mean()
        return f

    def decode(self, z0: Tensor) -> Tensor:
        """Black pictures."""
        return torch.zeros(1, 1, 1, 1).expand(len(z0), 3, self.resolution, self.resolution)

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int], steps: int | None = None, **how: Any
    ) -> Tensor:
        """Black pictures, after all passes that real ones need."""
        steps = self.defaults.steps if steps is None else steps
        with self.during("drawing"):
            for _ in drawn(self, prompts, seeds=seeds, steps=steps, **how):
                pass
        self.drawn.append((len(seeds), steps))
        return super().generate(prompts, seeds=seeds)


class _Phases(L2P):
    """L2P that says which part of an outer step it is in."""

    working: _Counted

    def attack_step(self, generator: torch.Generator) -> None:
        with self.working.during("attack"):
            super().attack_step(generator)

    def _preserves(self, generator: torch.Generator) -> float:
        with self.working.during("preserve"):
            return super()._preserves(generator)


def anew(defence: Defence, **changes: Any) -> Defence:
    """The same method, unprepared; `changes` to its settings."""
    kind: Any = type(defence)
    made: Defence = kind(replace(defence.settings, **changes))
    return made


class DryRun:
    """`immunize(model, subjects, defence, prompts=prompts, original=original)` on stand-ins.

    UsageError where `immunize` would raise one before its first step.
    """

    def __init__(
        self,
        model: TextToImage,
        defence: Defence,
        subjects: Sequence[Subject],
        prompts: Sequence[str] = (),
        *,
        original: TextToImage | None = None,
    ) -> None:
        self.original = _Counted(original or model, "original")
        self.working = _Counted(model, "protect")
        # As many passes, and a stand-in has no layers for an adapter or to choose from.
        acting = anew(defence, attack_low_rank=0.0, train="all", rank=0)
        self.l2p = engine(self.working, self.original, acting, subjects, prompts, l2p=_Phases)
        self.drawing = self._counted()

    def batch(self) -> Batch:
        """A batch against the first subject."""
        generator = torch.Generator().manual_seed(0)
        attack = self.l2p.attackers.draw(self.l2p.subjects[0], generator)
        return self.l2p.defence.batch(self.working, attack, generator)

    def count(self) -> Count:
        """The passes of the whole run. Each kind of attack is counted once, and multiplied.

        Gradient checkpointing computes most of a forward pass once more in its backward pass, which is not
        counted.
        """
        s, total = self.l2p.settings, self.drawing
        seen: dict[Any, list[Count]] = {}
        for attack, now in enumerate(turns(s, len(self.l2p.subjects))):
            first = attack * s.episode
            if now not in seen:  # an attack's first outer step, and one of the others
                seen[now] = [self._outer(first + later) for later in range(min(s.episode, 2))]
            others = min(s.episode, s.outer_steps - first) - 1
            total = total + seen[now][0] + seen[now][-1] * others
        return total

    def _outer(self, index: int) -> Count:
        before = self._counted()
        self.l2p(index, step_generator(0, index))
        return self._counted() + before * -1

    def _counted(self) -> Count:
        both = (self.original, self.working)
        names = {name for model in both for name in model.passes}
        return Count(**{
            name: Passes(sum(m.passes[name] for m in both), sum(m.pictures[name] for m in both))
            for name in names
        })  # fmt: skip


def count(
    model: TextToImage,
    defence: Defence,
    subjects: Sequence[Subject],
    prompts: Sequence[str] = (),
    *,
    original: TextToImage | None = None,
) -> Count:
    """The passes of `immunize(model, subjects, defence, prompts=prompts, original=original)`."""
    return DryRun(model, defence, subjects, prompts, original=original).count()
