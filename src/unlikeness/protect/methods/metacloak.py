"""MetaCloak: against the models of a whole fine-tune, through transforms (arXiv 2311.13127, Algorithm 1).

    θ_0, θ_I, θ_2I, ...: the models of a DreamBooth fine-tune on the clean pictures, I steps apart
    for each trial, for each θ of these, I / K times:
        δ <- PGD steps that raise E_T L_diff(T(x + δ), c_V) under θ, |δ| <= budget
        θ <- trained for K DreamBooth steps on the perturbed pictures x + δ

T is a Gaussian blur of 7 px with σ from 0.1 to 2 px, and a flip of every other picture, as in the released
code. Here the fine-tune runs again in each trial, to the same models, where the released code keeps all of
them in memory; and AdamW starts anew at each of them. See also `LearningProtection`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.protect.learning import LearningProtection, Run
from unlikeness.protect.published import MetaCloakSettings
from unlikeness.protect.settings import PgdSettings
from unlikeness.protect.surrogates import Surrogate
from unlikeness.protect.together import Ascent

__all__ = ["MetaCloak", "MetaCloakSettings", "transformed"]

_RADIUS = 3
_WIDTHS = (0.1, 2.0)
"""Half of the blur's window [px], and its σ [px]: torchvision's `GaussianBlur(7)`."""


class MetaCloak(LearningProtection[MetaCloakSettings]):
    """Raises the loss of many stages of a fine-tune, on average over blurs and flips."""

    settings_type = MetaCloakSettings

    def ascent(self, learner: TextToImage, pgd: PgdSettings, prompt: str) -> Ascent:
        """See `LearningProtection.ascent`."""
        return (_Through if self.settings.transforms else Ascent)(learner, pgd, prompt)

    def run(self, run: Run) -> None:
        """See the module."""
        s = self.settings
        number = 0
        for trial in range(s.trials):
            if trial:
                run.start_again()
            for k in range(self._surrogates):
                if k:
                    run.learn_clean(s.interval, k - 1)
                with run.learner.thrown_away():
                    for _ in range(self._rounds):
                        run.ascend(s.pgd_steps)
                        run.learn_perturbed(s.advance, number)
                        number += 1

    @property
    def _surrogates(self) -> int:
        return self.settings.train_steps // self.settings.interval + 1

    @property
    def _rounds(self) -> int:
        return max(self.settings.interval // self.settings.advance, 1)

    def work(self) -> tuple[int, int]:
        """See `LearningProtection.work`."""
        s = self.settings
        rounds = s.trials * self._surrogates * self._rounds
        return rounds * s.pgd_steps, rounds * s.advance + s.trials * (self._surrogates - 1) * s.interval


class _Through(Ascent):
    """The same, of transformed pictures."""

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        return super().objective(surrogate, transformed(images, generators), generators)


def transformed(images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """[B, 3, H, W] blurred and flipped, each picture by its own draws; differentiable."""
    drawn = torch.stack([torch.rand(2, generator=g) for g in generators]).to(images)
    sigma = _WIDTHS[0] + (_WIDTHS[1] - _WIDTHS[0]) * drawn[:, :1]
    at = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device)
    line = torch.softmax(-at.square() / (2 * sigma.square()), 1).repeat_interleave(3, 0)
    count, _, height, width = images.shape
    flat = F.pad(images, (_RADIUS,) * 4, mode="reflect")
    flat = flat.reshape(1, 3 * count, height + 2 * _RADIUS, width + 2 * _RADIUS)
    flat = F.conv2d(flat, line[:, None, None, :], groups=3 * count)
    blurred = F.conv2d(flat, line[:, None, :, None], groups=3 * count).reshape(images.shape)
    return torch.where((drawn[:, 1] < 0.5).view(-1, 1, 1, 1), blurred.flip(-1), blurred)
