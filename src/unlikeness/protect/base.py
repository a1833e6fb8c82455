"""The one loop of all gradient protections: projected gradient ascent in the L-infinity ball.

A method derives from `GradientProtection` and gives an `objective`, which is *maximised*; where a paper
minimises a loss, the objective is its negative. `start`, `gradient`, `step` and `project` can each be
replaced (momentum, another norm, a loss without a gradient of its own), the loop stays. Pictures may be
larger or smaller than the model's resolution: the objective then sees them resized (`view`).

Images are [B, 3, H, W] in [0, 1]; budgets and step sizes are n/255 in these units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from unlikeness import finite
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.diffusion.trial import check_model
from unlikeness.errors import UsageError
from unlikeness.protect.against import Against
from unlikeness.protect.settings import PgdSettings, ProtectSettings
from unlikeness.seeds import picture_generators, uniform
from unlikeness.viewing import viewed

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["GradientProtection", "Perturber", "frozen"]

P = TypeVar("P", bound=PgdSettings)


class Perturber(Protocol):
    """What tiles and folders need of a protection: one verb, and the size at which it is to see pictures.

    One that depends on more than its settings (weights, a file) also has a `fingerprint` of that, a str: a
    folder's finished pictures are done again when it changes. One that is at home in squares of another size
    than `resolution`, where pictures are worked on at their own size, says so as `tile`, an int [px]. What it
    is computed with it says as `against`, an `Against`; without one it counts as computed with nobody knows
    what. Its
    `model`, or without one itself, may tell where it computes: `device` and `dtype`.
    """

    @property
    def settings(self) -> ProtectSettings: ...

    @property
    def resolution(self) -> int:
        """Side of the squares it is made for [px]: what a trainer resizes photographs to."""

    def perturb(
        self, images: Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """Protect a batch.

        Args:
            images: [B, 3, H, W] in [0, 1].
            seeds: B numbers; picture i depends on `images[i]` and `seeds[i]` only.
            on_step: called with 1, 2, ... after each step, for progress.

        Returns:
            [B, 3, H, W] in [0, 1], nowhere further from `images` than the budget; same dtype and device. A
            picture that it fails on is NaN throughout.

        Raises:
            NotFiniteError: it would fail on any picture.
        """


class GradientProtection(ABC, Generic[P]):
    """A protection that follows a gradient through a frozen model.

    Args:
        model: the model that personalization would start from. It computes in its own dtype (bfloat16, ...),
            memory layout and device; the picture itself keeps the dtype that it came in.
        settings: the method's own.
    """

    settings_type: ClassVar[type[PgdSettings]]
    needs_model: ClassVar[bool] = True

    def __init__(self, model: TextToImage, settings: P) -> None:
        self.model = model
        self.settings = settings

    @property
    def resolution(self) -> int:
        return self.model.resolution

    @property
    def fingerprint(self) -> str:
        """What decides a result beside settings, picture and seed: a digest of the model."""
        return fingerprint(self.model)

    @property
    def against(self) -> Against:
        """The model."""
        return Against.model(self.model)

    @abstractmethod
    def objective(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """What the loop raises: [B]; entry i depends on `images[i]` and on draws from `generators[i]` only.

        `images` is [B, 3, H, W] in [0, 1], on the model's device, its short side `resolution`.
        """

    def start(self, original: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The first point: uniform in the ball, or the picture itself."""
        if not self.settings.random_start:
            return original.clone()
        offset = uniform(original, generators) * (self.settings.budget / 255)
        return self.project(original + offset, original)

    def gradient(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """d objective / d images, [B, 3, H, W]: each picture's own, as the sum over the batch is taken."""
        # Half precision would lose small gradients to underflow: they travel back enlarged.
        scale = 1024.0 if self.model.dtype == torch.float16 else 1.0
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            value = self.objective(viewed(leaf, self.resolution), generators).sum()
            (gradient,) = torch.autograd.grad(value * scale, leaf)
        return gradient / scale

    def step(self, gradient: Tensor) -> Tensor:
        """The move for a gradient: its sign, `step_size` long."""
        return gradient.sign() * (self.settings.step_size / 255)

    def project(self, images: Tensor, original: Tensor) -> Tensor:
        """The nearest point that is within the budget of `original` and within [0, 1]."""
        budget = self.settings.budget / 255
        return torch.clamp(images, original - budget, original + budget).clamp_(0, 1)

    @torch.no_grad()
    def perturb(
        self, images: Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """See `Perturber.perturb`.

        A picture fails if its gradient is not finite in any step.

        Raises:
            UsageError: not one seed a picture, or pictures of another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        if len(seeds) != len(images):
            raise UsageError(f"perturb needs one seed a picture: {len(images)} pictures, {len(seeds)} seeds")
        generators = picture_generators(seeds)
        original = images.detach().to(self.model.device)
        with frozen(*self.model.networks):
            current = self.start(original, generators)
            aimed = torch.zeros(len(images), dtype=torch.bool, device=original.device)
            failed = torch.zeros_like(aimed)
            for k in range(self.settings.steps):
                gradient = self.gradient(current, generators)
                aimed |= (gradient != 0).flatten(1).any(1)
                failed |= ~gradient.isfinite().flatten(1).all(1)
                if k == 0 and bool(failed.any()):  # the sign of NaN is 0, and the random start would stay
                    self.check()
                current = self.project(current + self.step(gradient), original)
                if on_step is not None:
                    on_step(k + 1)
            if bool(failed.any()):
                self.check()
        # Where there was no gradient in any step, the random start is left, which aims at nothing.
        result = torch.where(aimed.view(-1, 1, 1, 1), current, original)
        return result.masked_fill(failed.view(-1, 1, 1, 1), torch.nan).to(images.device)

    def check(self) -> None:
        """NotFiniteError, naming the part, if there is no gradient to follow on a plain picture either."""
        check_model(self.model)
        side = self.resolution
        plain = torch.linspace(0.25, 0.75, side, device=self.model.device).expand(1, 3, side, side)
        finite.check(self.gradient(plain, picture_generators([0])), finite.GRADIENT, self.model.dtype)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradient to any weight, inside; everything as it was, afterwards."""
    parts = [part for module in modules for part in module.modules()]
    weights = [weight for module in modules for weight in module.parameters()]
    modes = [part.training for part in parts]
    wants = [weight.requires_grad for weight in weights]
    try:
        for part in parts:
            part.training = False
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
        for weight, want in zip(weights, wants, strict=True):
            weight.requires_grad_(want)
