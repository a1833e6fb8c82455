"""One step of a protector's training, from pictures to the number to minimise.

A step draws pictures at a random scale, a budget each, sometimes a mask; the network answers with δ in one
pass; what is published is degraded the way pictures are (`augment`), resized as a trainer would, and shown to
each of the frozen models in turn. The gradient reaches the network through the encoders alone (`objectives`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.diffusion.devices import computes_bfloat16
from unlikeness.errors import UsageError
from unlikeness.protect.rid.network import MULTIPLE, Protector
from unlikeness.protect.rid.train import objectives
from unlikeness.protect.rid.train.augment import Augment, AugmentSettings
from unlikeness.protect.rid.train.pairs import Pairs
from unlikeness.protect.rid.train.recipe import ProtectorRecipe
from unlikeness.viewing import viewed

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage

__all__ = ["NO_MODEL", "Trial", "check_prompt", "draw_budgets", "draw_side"]

NO_MODEL = "a protector needs a model to protect against; give one or more --model"


def check_prompt(models: Sequence[TextToImage], recipe: ProtectorRecipe) -> None:
    """UsageError if one of the models does not read the whole of the recipe's prompt."""
    for model in models:
        if reason := model.conditioner.too_long(recipe.prompt):
            raise UsageError(reason)


class Trial:
    """One step's loss: everything between the pictures and the number to minimise.

    Args:
        network: what is trained.
        models: the frozen models, each with its own tokenizer, text encoder and autoencoder; the loss is
            their mean. All are shown the same pictures, at their own resolutions.
        pairs: pictures with gradient perturbations; needed where regression counts.
    """

    def __init__(
        self,
        network: Protector,
        models: Sequence[TextToImage],
        recipe: ProtectorRecipe,
        *,
        augment: Augment | None = None,
        pairs: Pairs | None = None,
    ) -> None:
        if not models:
            raise UsageError(NO_MODEL)
        if recipe.regression_weight and pairs is None:
            raise UsageError("regression_weight needs pictures with gradient perturbations")
        check_prompt(models, recipe)
        self.network, self.models, self.recipe, self.pairs = network, list(models), recipe, pairs
        self.augment = augment or Augment(AugmentSettings())
        with torch.no_grad():
            self._c = [model.condition([recipe.prompt]).detach() for model in self.models]
            self._grey = [_grey_latent(model) if recipe.pull_weight else None for model in self.models]
        self.raised = 0.0
        """The frozen models' diffusion loss on the last step's protected pictures."""

    def __call__(self, images: Tensor, budget: Tensor, generator: torch.Generator) -> Tensor:
        """The loss, a scalar. images: [B, 3, H, W] in [0, 1]; budget: n/255, [B] or [B, 1, H, W]."""
        r = self.recipe
        delta = self._answer(images, budget)
        flat = budget if budget.ndim == 1 else budget.flatten(1).amax(1).clamp_min(0.1)
        total = r.visibility_weight * objectives.visibility(delta, images, flat)
        total = total + r.energy_weight * objectives.excess_energy(delta, flat, r.energy_share)
        if r.sds_weight or r.displacement_weight or r.pull_weight:
            published = self.augment((images + delta).clamp(0, 1), generator)
            self.raised = 0.0
            for model, c, grey in zip(self.models, self._c, self._grey, strict=True):
                total = total + self._against(model, c, grey, published, images, generator) / len(self.models)
        if r.regression_weight:
            assert self.pairs is not None
            clean, wanted = self.pairs.draw(max(r.batch_size // 2, 1), generator)
            clean, wanted = clean.to(images.device), wanted.to(images.device)
            asked = torch.full((len(clean),), r.pair_budget, device=images.device)
            found = self._answer(clean, asked)
            total = total + r.regression_weight * objectives.regression(found, wanted, asked)
        return total

    def _answer(self, images: Tensor, budget: Tensor) -> Tensor:
        """δ, computed in bfloat16 where that is quicker."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=computes_bfloat16(images.device)):
            delta: Tensor = self.network(images, budget)
        return delta.float()

    def _against(
        self,
        model: TextToImage,
        c: Condition,
        grey: Tensor | None,
        published: Tensor,
        images: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        r = self.recipe
        posterior = model.encode(viewed(published, model.resolution).to(model.device))
        total = posterior.mean.new_zeros(())
        if r.sds_weight:
            t, eps, noise = objectives.noised(posterior, model.schedule.steps, generator)
            loss, raised = objectives.adv_sds(model, posterior, c, t=t, eps=eps, noise=noise)
            self.raised += float(raised) / len(self.models)
            total = total + r.sds_weight * loss
        if r.displacement_weight or r.pull_weight:
            with torch.no_grad():
                clean = model.encode(viewed(images, model.resolution).to(model.device)).mean
            if r.displacement_weight:
                total = total + r.displacement_weight * objectives.displacement(posterior, clean)
            if grey is not None:
                total = total + r.pull_weight * objectives.pull(posterior, clean, grey)
        return total.to(images.device)


def _grey_latent(model: TextToImage) -> Tensor:
    """z_tgt of the pull: [1, C, h, w]."""
    return model.encode_all(torch.full((1, 3, model.resolution, model.resolution), 0.5)).mean


def draw_budgets(recipe: ProtectorRecipe, count: int, side: int, generator: torch.Generator) -> Tensor:
    """Budgets in n/255: one a picture, [B], or with a soft mask that is zero in places, [B, 1, S, S]."""
    low, high = torch.tensor([recipe.least_budget, recipe.most_budget]).log()
    budget: Tensor = (low + (high - low) * torch.rand(count, generator=generator)).exp()
    if float(torch.rand((), generator=generator)) >= recipe.masked:
        return budget
    coarse = torch.randn(count, 1, 4, 4, generator=generator)
    mask: Tensor = F.interpolate(coarse, (side, side), mode="bicubic").mul(3).add(0.5).clamp(0, 1)
    return budget.view(-1, 1, 1, 1) * mask


def draw_side(recipe: ProtectorRecipe, resolution: int, generator: torch.Generator) -> int:
    """Side of a batch [px]: the resolution half of the time, else up to `largest_detail` times it."""
    larger, factor = (float(v) for v in torch.rand(2, generator=generator))
    if larger < 0.5:
        return resolution
    return round(resolution * (1 + factor * (recipe.largest_detail - 1)) / MULTIPLE) * MULTIPLE
