"""The one loop of all gradient protections: projected gradient ascent in the L-infinity ball.

A method derives from `GradientProtection` and gives an `objective`, which is *maximised*; a paper's loss that
is minimised becomes its negative. `start`, `gradient`, `step` and `project` can each be replaced (momentum,
another norm, a loss without a gradient of its own). Pictures of another size than a surrogate's resolution
are resized for it as a trainer would, and the gradient goes through the resizing.

Images are [B, 3, H, W] in [0, 1]; budgets and step sizes are n/255 in these units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.protect.against import Against
from unlikeness.protect.arrays import check_batch
from unlikeness.protect.settings import PgdSettings, ProtectSettings, StepSettings
from unlikeness.protect.surrogates import Models, Surrogate, Surrogates
from unlikeness.seeds import picture_generators, uniform

__all__ = ["GradientProtection", "OnStep", "Perturber", "check_batch", "perturb_within"]

P = TypeVar("P", bound=StepSettings)

OnStep = Callable[[int], None]


class Perturber(Protocol):
    """A protection as tiles and folders use it: one verb, and the resolution that it is made for.

    It may also have:

    - `fingerprint`, a str: a digest of what it depends on beside its settings (weights, a file). A folder's
      finished pictures are done again when it changes.
    - `against`, an `Against`: what it is computed with. Without it, this is recorded as unknown.
    - `tile`, an int: side of the tiles at a picture's own size [px]; without it, `resolution`.
    - `device` and `dtype`: where and in which precision it computes.
    - `engine`, a str: the library that computes, where it is not torch. It is part of a picture's recipe.
    - `perturb_arrays(images, strength, seeds, on_step)`: for a protection that needs no torch; see
      `arrays.perturbed`.
    - `perturb_within(images, strength, seeds, on_step)`: see the function of this name.
    - `together(images, seeds)`: for a method that needs all pictures of a run at once. It is called with all
      tiles before the first `perturb`; `fingerprint` then has to depend on them.
    """

    @property
    def settings(self) -> ProtectSettings: ...

    @property
    def resolution(self) -> int:
        """Short side to which a trainer resizes photographs [px]."""

    def perturb(self, images: Tensor, seeds: Sequence[int], on_step: OnStep | None = None) -> Tensor:
        """Protect a batch.

        Args:
            images: [B, 3, H, W] in [0, 1].
            seeds: B numbers; picture i depends on `images[i]` and `seeds[i]` only.
            on_step: called with 1, 2, ... after each step.

        Returns:
            [B, 3, H, W] in [0, 1], nowhere further from `images` than the budget; same dtype and device. A
            picture that fails is NaN throughout.

        Raises:
            NotFiniteError: it would fail on any picture.
        """


class GradientProtection(ABC, Generic[P]):
    """A protection that follows a gradient through frozen surrogates.

    Args:
        models: the model that personalization would start from, or several. Each computes in its own dtype
            (bfloat16, ...), memory layout and device; the picture keeps its dtype.
        settings: the method's own.
    """

    settings_type: ClassVar[type[StepSettings]]
    needs_model: ClassVar[bool] = True

    def __init__(self, models: Models, settings: P) -> None:
        self.surrogates = Surrogates.of(models)
        self.settings = settings

    @property
    def resolution(self) -> int:
        return self.surrogates.resolution

    @property
    def device(self) -> torch.device:
        return self.surrogates.device

    @property
    def dtype(self) -> torch.dtype:
        return self.surrogates.dtype

    @property
    def fingerprint(self) -> str:
        """A digest of everything that decides a result beside settings, picture and seed."""
        return self.surrogates.fingerprint

    @property
    def against(self) -> Against:
        return self.surrogates.against

    @abstractmethod
    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """The value to raise, [B]; entry i depends on `images[i]` and on draws from `generators[i]` only."""

    def begin(self, original: Tensor) -> None:
        """Called with the originals of each batch, before anything else."""

    def rests(self) -> Tensor | None:
        """[B], bool, after each step: the pictures that are finished. None: none is before the last step."""
        return None

    def start(self, original: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The first point: uniform in the ball, or the picture itself."""
        if isinstance(self.settings, PgdSettings) and not self.settings.random_start:
            return original.clone()
        offset = uniform(original, generators) * (self.settings.budget / 255)
        return self.project(original + offset, original)

    def gradient(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """d objective / d images, [B, 3, H, W], of the mean over surrogates; for each picture its own."""
        # Half precision would lose small gradients to underflow, so they travel back enlarged.
        scale = 1024.0 if self.dtype == torch.float16 else 1.0
        leaf = images.detach().requires_grad_(True)
        total = torch.zeros_like(leaf)
        for surrogate in self.surrogates:
            with torch.enable_grad():
                value = self.objective(surrogate, leaf, generators).sum()
                (gradient,) = torch.autograd.grad(value * scale, leaf)
            total += gradient / scale
        return total / len(self.surrogates)

    def step(self, gradient: Tensor) -> Tensor:
        """The move for a gradient: its sign, `step_size` long."""
        return gradient.sign() * (self.settings.step_size / 255)

    def project(self, images: Tensor, original: Tensor) -> Tensor:
        """The nearest point that is within the budget of `original` and within [0, 1]."""
        budget = self.settings.budget / 255
        return torch.clamp(images, original - budget, original + budget).clamp_(0, 1)

    def perturb(self, images: Tensor, seeds: Sequence[int], on_step: OnStep | None = None) -> Tensor:
        """See `Perturber.perturb`. A picture fails if its gradient is not finite in any step."""
        return self.perturb_within(images, None, seeds, on_step)

    @torch.no_grad()
    def perturb_within(
        self, images: Tensor, strength: Tensor | None, seeds: Sequence[int], on_step: OnStep | None = None
    ) -> Tensor:
        """`perturb` with every step projected into the ball of each pixel's own size."""
        check_batch(images, seeds)
        generators = picture_generators(seeds)
        original = images.detach().to(self.device)
        limit = None if strength is None else strength.to(self.device) * (self.settings.budget / 255)

        def within(near: Tensor) -> Tensor:
            return near if limit is None else torch.clamp(near, original - limit, original + limit)

        with self.surrogates.frozen():
            self.begin(original)
            current = within(self.start(original, generators))
            aimed = torch.zeros(len(images), dtype=torch.bool, device=original.device)
            failed = torch.zeros_like(aimed)
            rests: Tensor | None = None
            for k in range(self.settings.steps):
                gradient = self.gradient(current, generators)
                aimed |= (gradient != 0).flatten(1).any(1)
                failed |= ~gradient.isfinite().flatten(1).all(1)
                if k == 0 and bool(failed.any()):  # the sign of NaN is 0, and the random start would stay
                    self.check()
                moved = within(self.project(current + self.step(gradient), original))
                current = moved if rests is None else torch.where(rests.view(-1, 1, 1, 1), current, moved)
                if on_step is not None:
                    on_step(k + 1)
                rests = self.rests()
                if rests is not None and bool(rests.all()):
                    break
            if bool(failed.any()):
                self.check()
        # Without a gradient in any step only the random start is left, which aims at nothing.
        result = torch.where(aimed.view(-1, 1, 1, 1), current, original)
        return result.masked_fill(failed.view(-1, 1, 1, 1), torch.nan).to(images.device)

    def check(self) -> None:
        """NotFiniteError, which names the part, if there is no gradient on a plain picture either."""
        for surrogate in self.surrogates:
            surrogate.check()
        side = self.resolution
        plain = torch.linspace(0.25, 0.75, side, device=self.device).expand(1, 3, side, side)
        self.begin(plain)
        finite.check(self.gradient(plain, picture_generators([0])), finite.GRADIENT, self.dtype)


@torch.no_grad()
def perturb_within(
    perturber: Perturber, images: Tensor, strength: Tensor, seeds: Sequence[int],
    on_step: OnStep | None = None,
) -> Tensor:  # fmt: skip
    """`Perturber.perturb` with the budget times `strength`, [B, 1, H, W] in [0, 1], at each pixel.

    A method that has no `perturb_within` of its own has its perturbation scaled afterwards.
    """
    own = getattr(perturber, "perturb_within", None)
    if own is not None:
        protected: Tensor = own(images, strength, seeds, on_step)
        return protected
    free = perturber.perturb(images, seeds, on_step)
    return images + (free - images) * strength
