"""One step of a protector's training, from pictures to the loss.

A step draws pictures at a random size, a budget for each, and sometimes a mask. The network answers with δ in
one pass. The protected picture is degraded as published pictures are (`augment`), resized as a trainer would,
and shown to each surrogate. The gradient reaches the network through the encoders alone (`objectives`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness import finite
from unlikeness.diffusion.devices import computes_bfloat16
from unlikeness.errors import UsageError
from unlikeness.protect.rid.network import MULTIPLE, Protector
from unlikeness.protect.rid.train import objectives, patterns
from unlikeness.protect.rid.train.augment import TRAINER, Augment
from unlikeness.protect.rid.train.pairs import Pairs
from unlikeness.protect.rid.train.recipe import ProtectorRecipe
from unlikeness.protect.surrogates import Models, Surrogate, Surrogates

__all__ = ["NO_MODEL", "Trial", "distances_of", "draw_budgets", "draw_side"]

NO_MODEL = "a protector needs something to protect against; give one or more --against or --model"

_COMPARED = 24
"""Pictures whose latents `distances_of` compares."""


class Trial:
    """The loss of one step.

    Args:
        network: what is trained.
        models: the frozen surrogates; the loss is the mean. A whole model sees the degraded pictures at its
            own resolution. An autoencoder alone sees them as they are, as parts of larger pictures.
        distances: of each autoencoder alone, between the latents of two pictures.
        pairs: pictures with gradient perturbations; needed if the regression has a weight.
    """

    def __init__(
        self, network: Protector, models: Models, recipe: ProtectorRecipe, *, augment: Augment | None = None,
        pairs: Pairs | None = None, distances: Mapping[Surrogate, float] | None = None,
    ) -> None:  # fmt: skip
        self.surrogates = Surrogates.of(models)
        if not self.surrogates:
            raise UsageError(NO_MODEL)
        if recipe.regression_weight and pairs is None:
            raise UsageError("regression_weight needs pictures with gradient perturbations")
        self.network, self.recipe, self.pairs = network, recipe, pairs
        self.augment, self.trainer = augment or Augment(), TRAINER
        self.whole = [one for one in self.surrogates if one.model is not None]
        self.autoencoders = [one for one in self.surrogates if one.model is None]
        self.distances = distances or {}
        self._c = self.surrogates.conditions(recipe.prompt)
        self._grey: dict[Surrogate, Tensor] = {}
        if recipe.pull_weight:
            with torch.no_grad():
                self._grey = {one: _grey_latent(one) for one in self.surrogates}
        self.raised = 0.0
        """The frozen models' diffusion loss on the last step's protected pictures."""

    def __call__(self, images: Tensor, budget: Tensor, generator: torch.Generator) -> Tensor:
        """The loss, a scalar. images: [B, 3, H, W] in [0, 1]; budget: n/255, [B] or [B, 1, H, W]."""
        r = self.recipe
        delta = self._answer(images, budget)
        flat = budget if budget.ndim == 1 else budget.flatten(1).amax(1).clamp_min(0.1)
        total = torch.zeros((), device=images.device)
        if r.visibility_weight:
            total = r.visibility_weight * objectives.visibility(delta, images, flat)
        total = total + r.energy_weight * objectives.excess_energy(delta, flat, r.energy_share)
        if r.pattern_weight:
            total = total + r.pattern_weight * patterns.regular(delta, images, flat)
        if r.repetition_weight:
            total = total + r.repetition_weight * patterns.repeated(delta, flat)
        protected = (images + delta).clamp(0, 1)
        if self.whole and (r.sds_weight or r.displacement_weight or r.pull_weight):
            published = self.augment(protected, generator)
            self.raised = 0.0
            for surrogate in self.whole:
                total = total + self._against(surrogate, published, images, generator) / len(self.surrogates)
        if self.autoencoders and r.distance_weight:
            view = self.trainer.drawn(len(images), generator)
            seen, clean = view(protected), view(images)
            for surrogate in self.autoencoders:
                moved = self._moved(surrogate, seen, clean).to(images.device)
                total = total + r.distance_weight * moved / len(self.surrogates)
        if r.regression_weight:
            assert self.pairs is not None
            clean, wanted = self.pairs.draw(max(r.batch_size // 2, 1), generator)
            clean, wanted = clean.to(images.device), wanted.to(images.device)
            asked = torch.full((len(clean),), r.pair_budget, device=images.device)
            found = self._answer(clean, asked)
            total = total + r.regression_weight * objectives.regression(found, wanted, asked)
        return total

    def _answer(self, images: Tensor, budget: Tensor) -> Tensor:
        """δ, computed in bfloat16 where that is faster."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=computes_bfloat16(images.device)):
            delta: Tensor = self.network(images, budget)
        return delta.float()

    def _against(
        self, surrogate: Surrogate, published: Tensor, images: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The terms of one surrogate."""
        r = self.recipe
        posterior = surrogate.encode(published)
        total = posterior.mean.new_zeros(())
        if r.sds_weight and surrogate.model is not None:
            model = surrogate.model
            t, eps, noise = objectives.noised(posterior, model.schedule.steps, generator)
            loss, raised = objectives.adv_sds(
                model, posterior, self._c[surrogate], t=t, eps=eps, noise=noise
            )  # fmt: skip
            self.raised += float(raised) / len(self.surrogates)
            total = total + r.sds_weight * loss
        if r.displacement_weight or r.pull_weight:
            with torch.no_grad():
                clean = surrogate.encode(images).mean
            if r.displacement_weight:
                total = total + r.displacement_weight * objectives.displacement(posterior, clean)
            if r.pull_weight:
                total = total + r.pull_weight * objectives.pull(posterior, clean, self._grey[surrogate])
        return total.to(images.device)

    def _moved(self, surrogate: Surrogate, seen: Tensor, clean: Tensor) -> Tensor:
        """The term of an autoencoder alone."""
        with torch.no_grad():
            unmoved = surrogate.autoencoder.encode(clean).mean
        mean = surrogate.autoencoder.encode(seen).mean
        return objectives.moved(mean, unmoved, self.distances.get(surrogate, 1.0))


def _grey_latent(surrogate: Surrogate) -> Tensor:
    """z_tgt of the pull: [1, C, h, w]."""
    side = surrogate.resolution
    grey = surrogate.encode(torch.full((1, 3, side, side), 0.5)).mean
    return finite.check(grey, finite.ENCODER, surrogate.autoencoder.dtype)


def draw_budgets(recipe: ProtectorRecipe, count: int, side: int, generator: torch.Generator) -> Tensor:
    """Budgets in n/255: one for each picture, [B], or times a soft mask, [B, 1, S, S]."""
    low, high = torch.tensor([recipe.least_budget, recipe.most_budget]).log()
    budget: Tensor = (low + (high - low) * torch.rand(count, generator=generator)).exp()
    if float(torch.rand((), generator=generator)) >= recipe.masked:
        return budget
    coarse = torch.randn(count, 1, 4, 4, generator=generator)
    mask: Tensor = F.interpolate(coarse, (side, side), mode="bicubic").mul(3).add(0.5).clamp(0, 1)
    return budget.view(-1, 1, 1, 1) * mask


def distances_of(
    surrogates: Surrogates, draw: Callable[[int, int, torch.Generator], Tensor], side: int, seed: int
) -> dict[Surrogate, float]:
    """The mean distance between the latents of two of the training's pictures, for autoencoders alone."""
    pictures = draw(_COMPARED, side, torch.Generator().manual_seed(seed))
    found = {}
    with torch.no_grad():
        for one in surrogates:
            if one.model is None:
                parts = [one.autoencoder.encode(pictures[i : i + 4]).mean for i in range(0, _COMPARED, 4)]
                found[one] = objectives.mean_distance(torch.cat(parts))
    return found


def draw_side(recipe: ProtectorRecipe, resolution: int, generator: torch.Generator) -> int:
    """Side of a batch [px]: `recipe.side`, or half of the time the resolution and otherwise up to
    `largest_detail` times it."""
    if recipe.side:
        return recipe.side
    larger, factor = (float(v) for v in torch.rand(2, generator=generator))
    if larger < 0.5:
        return resolution
    return round(resolution * (1 + factor * (recipe.largest_detail - 1)) / MULTIPLE) * MULTIPLE
