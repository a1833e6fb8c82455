"""SimAC: ASPL at chosen noise levels, and with a feature loss (Wang et al. 2024, arXiv 2312.07865).

Before the rounds of ASPL, each picture gets its own noise levels by a greedy search (Algorithm 1). A step of
it draws five of the levels that are left, and compares Σ |∂L_diff / ∂x|. It takes out those around the
smallest, and moves the picture by a PGD step at the largest. It ends when a tenth is left. The rounds then
raise, at these levels only,

    L_diff(x + δ, c_V) + λ · mean (φ(z_t(x + δ)) − φ(z_t(x)))²,

φ the denoiser's late features at the same t and ε. In the released code the second term is a number without
a gradient: the preset `released` (λ = 0). It also compares with the pictures of the round before; here, as in
the paper, with the originals. φ is the last block's output, where the paper takes the last three layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.inside import late_features
from unlikeness.diffusion.loss import diffusion_loss
from unlikeness.protect.learning import LearningProtection, Run
from unlikeness.protect.published import SimACSettings
from unlikeness.protect.settings import PgdSettings
from unlikeness.protect.surrogates import Surrogate, frozen
from unlikeness.protect.together import Ascent
from unlikeness.seeds import derive, integers, normal, picture_generators

__all__ = ["SimAC", "SimACSettings"]

_CANDIDATES = 5
"""Levels that a step of the search compares."""
_AROUND = 0.02
"""Share of all levels that is taken out on either side of one."""
_LEFT = 0.1
"""Share of all levels that the search leaves."""


class SimAC(LearningProtection[SimACSettings]):
    """Raises the loss of a learning copy where the gradient is large, and moves its late features."""

    settings_type = SimACSettings

    def ascent(self, learner: TextToImage, pgd: PgdSettings, prompt: str) -> Ascent:
        """See `LearningProtection.ascent`."""
        return _Chosen(learner, pgd, prompt, self.settings.feature_weight)

    def run(self, run: Run) -> None:
        """The search, then ASPL's rounds."""
        s, ascent = self.settings, run.ascent
        assert isinstance(ascent, _Chosen)
        with frozen(*run.learner.model.networks):
            ascent.begin(run.original)
            ascent.levels = [
                ascent.search(image[None], derive(seed, "levels"), s.search_steps)
                for image, seed in zip(run.original, run.seeds, strict=True)
            ]
        for k in range(s.rounds):
            with run.learner.thrown_away():
                run.learn_clean(s.clean_steps, k)
                run.ascend(s.pgd_steps)
            run.learn_perturbed(s.perturbed_steps, k)

    @property
    def steps(self) -> int:
        """See `TogetherProtection.steps`; the search is not counted."""
        return super().steps - self.settings.search_steps * (_CANDIDATES + 1)

    def work(self) -> tuple[int, int]:
        """See `LearningProtection.work`; a step of the search has six gradients."""
        s = self.settings
        search = s.search_steps * (_CANDIDATES + 1)
        return s.rounds * s.pgd_steps + search, s.rounds * (s.clean_steps + s.perturbed_steps)


class _Chosen(Ascent):
    """levels: for each picture of the subject, the noise levels that are drawn (long)."""

    def __init__(self, model: TextToImage, settings: PgdSettings, prompt: str, weight: float) -> None:
        super().__init__(model, settings, prompt)
        self.weight = weight
        self.levels: list[Tensor] = []
        self._original = torch.zeros(0)

    def begin(self, original: Tensor) -> None:
        """See `GradientProtection.begin`; with all of the subject's pictures."""
        self._original = original

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: the diffusion loss, and λ times the distance of the features."""
        model, c = surrogate.whole, self.c[surrogate]
        posterior = surrogate.encode(images)
        of_posterior = normal(posterior.mean, generators)
        z0 = posterior.mean + posterior.std * of_posterior
        t = self._drawn(model.schedule.steps, generators, len(images)).to(z0.device)
        eps = normal(z0, generators)
        with late_features(model) as seen:
            loss = diffusion_loss(model, z0, c, t=t, eps=eps, reduce="none")
            if not self.weight or not len(self._original):
                return loss
            with torch.no_grad():
                clean = surrogate.encode(self._original[self.part])
                kept = clean.mean + clean.std * of_posterior
                diffusion_loss(model, kept, c, t=t, eps=eps, reduce="none")
        moved, still = (one.flatten(1).float() for one in seen)
        return loss + self.weight * (moved - still).square().mean(1)

    def _drawn(self, steps: int, generators: Sequence[torch.Generator], count: int) -> Tensor:
        if not self.levels:
            return integers(0, steps, generators)
        own = self.levels[self.part]
        drawn = [levels[integers(0, len(levels), [g])] for levels, g in zip(own, generators, strict=True)]
        return torch.cat(drawn)

    def search(self, image: Tensor, seed: int, steps: int) -> Tensor:
        """The noise levels of one picture [1, 3, H, W], in order."""
        (surrogate,) = self.surrogates
        model, total = surrogate.whole, surrogate.whole.schedule.steps
        around, enough = max(round(_AROUND * total), 1), max(round(_LEFT * total), 1)
        generators = picture_generators([seed])
        left = torch.ones(total, dtype=torch.bool)
        current = image
        for _ in range(steps):
            levels = left.nonzero().flatten()
            if len(levels) <= enough:
                break
            found: list[tuple[float, int, Tensor]] = []
            for _ in range(_CANDIDATES):
                t = int(levels[integers(0, len(levels), generators)])
                gradient = self._at(surrogate, model, current, t, generators)
                found.append((float(gradient.abs().sum()), t, gradient))
            low, high = min(found, key=lambda one: one[0])[1], max(found, key=lambda one: one[0])[1]
            low = min(max(low, around), total - around)
            left[low - around : low + around] = False
            gradient = self._at(surrogate, model, current, high, generators)
            current = self.project(current + self.step(gradient), image)
        return left.nonzero().flatten()

    def _at(
        self, surrogate: Surrogate, model: TextToImage, image: Tensor, t: int,
        generators: Sequence[torch.Generator],
    ) -> Tensor:  # fmt: skip
        """∂L_diff / ∂x of one picture at the level t."""
        leaf = image.detach().requires_grad_(True)
        with torch.enable_grad():
            posterior = surrogate.encode(leaf)
            z0 = posterior.mean + posterior.std * normal(posterior.mean, generators)
            at = torch.full((1,), t, device=z0.device)
            loss = diffusion_loss(model, z0, self.c[surrogate], t=at, eps=normal(z0, generators))
            (gradient,) = torch.autograd.grad(loss, leaf)
        return gradient
