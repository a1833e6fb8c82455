"""IMPRESS (Cao et al. 2023): protected pictures do not survive the autoencoder; find one nearby that does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness import finite
from unlikeness.purify.base import Model, PictureByPicture, autoencoder_of
from unlikeness.purify.settings import ImpressSettings
from unlikeness.purify.tiles import by_tiles
from unlikeness.seeds import derive, normal, picture_generators

__all__ = ["Impress", "ImpressSettings"]

_WINDOW, _SIGMA = 11, 1.5
"""SSIM's window [px] (Wang et al. 2004)."""
_LAST_RATE = 1e-5
"""Learning rate at the end, as in the released code."""


class Impress(PictureByPicture[ImpressSettings]):
    """Minimises ‖x − D(E(x))‖² + α · max(d(x, x') − Δ, 0) over x by Adam, from x' and a little noise.

    x' is the given picture; E is the posterior's mean. d is 1 − SSIM here, which needs no weights; the paper
    has LPIPS. model: a model, or an autoencoder alone; None if the settings name an autoencoder. A picture is
    worked on in tiles.
    """

    settings_type = ImpressSettings

    def __init__(self, model: Model | None, settings: ImpressSettings) -> None:
        super().__init__(model, settings)
        self.autoencoder = autoencoder_of(model, settings, "impress")
        self.fingerprint = self.autoencoder.fingerprint

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""

        def change(tile: Tensor, number: int) -> Tensor:
            return self._consistent(tile.to(self.autoencoder.device), derive(seed, number))

        side = self.settings.tile
        return by_tiles(image, change, side=side, cell=self.autoencoder.factor, overlap=side // 4)

    @torch.enable_grad()
    def _consistent(self, given: Tensor, seed: int) -> Tensor:
        """A tile [1, 3, h, w] in [0, 1] near `given` that the autoencoder keeps. Inside, values are in
        [-1, 1], as in the paper."""
        own = self.settings
        start = 2 * given - 1 + own.noise * normal(given, picture_generators([seed]))
        x = start.clamp(-1, 1).detach().requires_grad_(True)
        optimizer = torch.optim.Adam([x], lr=own.learning_rate, eps=_LAST_RATE)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, own.steps, eta_min=_LAST_RATE)
        for _ in range(own.steps):
            image = (x + 1) / 2
            again = self.autoencoder.decode(self.autoencoder.encode(image).mean)
            loss = F.mse_loss(2 * again.float() - 1, x)
            loss = loss + own.alpha * (1 - _ssim(image, given) - own.distance).clamp(min=0)
            (x.grad,) = torch.autograd.grad(loss, x)
            optimizer.step()
            falling.step()
            x.data.clamp_(-1, 1)
        finite.check(x.detach(), finite.GRADIENT, self.autoencoder.dtype)
        return (x.detach() + 1) / 2


def _ssim(one: Tensor, other: Tensor) -> Tensor:
    """The mean SSIM of [1, 3, h, w] in [0, 1], channel by channel; differentiable."""
    at = torch.arange(_WINDOW, device=one.device) - _WINDOW // 2
    line = torch.softmax(-at.square() / (2 * _SIGMA**2), 0)
    window = (line[:, None] * line).to(one).expand(3, 1, -1, -1)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, window, padding=_WINDOW // 2, groups=3)

    a, b = mean(one), mean(other)
    aa, bb, ab = mean(one * one) - a * a, mean(other * other) - b * b, mean(one * other) - a * b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * a * b + c1) * (2 * ab + c2) / ((a * a + b * b + c1) * (aa + bb + c2))).mean()
