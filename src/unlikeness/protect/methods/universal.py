"""One perturbation for all pictures, learnt once and then only added, after FastProtect (arXiv 2412.11423).

    max over δ, |δ| <= budget:  E_x mean over surrogates of ‖E(x + δ) − E(x)‖ / s

Here x are synthetic pictures, E is the mean of the posterior, and s the distance between two pictures'
latents. Each step follows the sign of the gradient of a few pictures. To protect a picture, δ is enlarged to
it and added: no model computes anything then.

FastProtect learns four perturbations and gives each picture the one of its kind, pulls several layers of the
encoder to a target, and weakens the change where LPIPS sees it. None of that is here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness import finite
from unlikeness.cache import Cache
from unlikeness.protect.aims import Aims, rms
from unlikeness.protect.base import GradientProtection, OnStep, check_batch
from unlikeness.protect.published import UniversalSettings
from unlikeness.protect.rid.train.pictures import dead_leaves
from unlikeness.protect.surrogates import Models, Surrogate
from unlikeness.seeds import picture_generators, step_generator, uniform

__all__ = ["Universal", "UniversalSettings"]

_FORWARD = 0.45
"""Time of seeing a picture, as a share of that of a gradient."""


class Universal(GradientProtection[UniversalSettings]):
    """Adds the same perturbation to every picture. Autoencoders alone are enough."""

    settings_type = UniversalSettings

    def __init__(self, models: Models, settings: UniversalSettings) -> None:
        super().__init__(models, settings)
        self._aims = Aims()
        self._clean: dict[Surrogate, Tensor] = {}
        self._on_step: OnStep | None = None

    @cached_property
    def delta(self) -> Tensor:
        """[1, 3, R, R] of the surrogates' resolution R, in [0, 1] units; learnt now, or from the cache.

        NotFiniteError if a gradient is not finite; UnlikenessError for a damaged cache.
        """
        own = self.settings
        key = {"models": self.fingerprint, "side": self.resolution, **asdict(own), "cache": None}
        folder = Path(own.cache).expanduser() if own.cache else None
        return Cache(folder).part("universal", key, lambda _: {"delta": self._learnt()}).tensors["delta"]

    @torch.no_grad()
    def _learnt(self) -> Tensor:
        own, budget = self.settings, self.settings.budget / 255
        pictures = torch.cat([_picture(seed, self.resolution) for seed in range(own.pictures)])
        pictures = pictures.to(self.device)
        self.begin(pictures)
        clean = self._clean
        # At the picture itself the distance has no gradient.
        delta = budget / 2 * uniform(pictures[:1], [step_generator(0, -1)])
        with self.surrogates.frozen():
            for k in range(own.steps):
                which = torch.randperm(own.pictures, generator=step_generator(0, k))[: own.batch_size]
                self._clean = {one: latents[which.to(latents.device)] for one, latents in clean.items()}
                seen = (pictures[which.to(pictures.device)] + delta).clamp(0, 1)
                gradient = self.gradient(seen, picture_generators(which.tolist())).mean(0, keepdim=True)
                if not finite.all_finite([gradient]):
                    self.check()
                    raise finite.not_finite(finite.GRADIENT, self.dtype)
                delta = (delta + self.step(gradient)).clamp(-budget, budget)
                if self._on_step is not None:
                    self._on_step(k + 1)
        return delta

    @torch.no_grad()
    def begin(self, original: Tensor) -> None:
        """See `GradientProtection.begin`: encodes the originals, one by one."""
        self._clean = {
            one: torch.cat([one.encode(image[None]).mean for image in original]) for one in self.surrogates
        }

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: how far the latents are from the originals', in distances between two pictures."""
        moved = rms(surrogate.encode(images).mean - self._clean[surrogate])
        return moved / self._aims.spread(surrogate)

    def perturb_within(
        self, images: Tensor, strength: Tensor | None, seeds: Sequence[int], on_step: OnStep | None = None
    ) -> Tensor:
        """See `GradientProtection.perturb_within`: an addition. Seeds change nothing."""
        check_batch(images, seeds)
        self._on_step = on_step
        delta = F.interpolate(self.delta, images.shape[-2:], mode="nearest-exact").to(images)
        return (images.detach() + (delta if strength is None else delta * strength)).clamp(0, 1)

    def seconds(self, side: int, count: int) -> float:
        """An estimate of the learning, from one gradient; what comes then takes no time."""
        if "delta" in vars(self):
            return 0.0
        image = _picture(0, self.resolution).to(self.device)
        with self.surrogates.frozen():
            self.begin(image)
            self.gradient(image, picture_generators([0]))  # the first one also sets things up
            began = time.perf_counter()
            self.gradient(image, picture_generators([0]))
            step = time.perf_counter() - began
        own = self.settings
        return step * (own.steps * min(own.batch_size, own.pictures) + _FORWARD * own.pictures)


def _picture(seed: int, side: int) -> Tensor:
    """A synthetic picture [1, 3, side, side] in [0, 1]."""
    drawn = dead_leaves(np.random.default_rng(9_000_000 + seed), side)
    return torch.from_numpy(drawn).permute(2, 0, 1)[None].float() / 255
