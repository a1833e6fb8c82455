"""Move what autoencoders see of a picture, through what trainers do to it; no denoiser takes part.

    max over δ:  mean over surrogates of ‖E(v(x + δ)) − E(v(x))‖ / s,   v from `trainers_view.VIEWS` in turn

E is the mean of the posterior, in the latents that a denoiser sees. s is the distance between two pictures'
latents, so that no surrogate outweighs another. The objective "target" lowers the distance to a target's
latent instead, and "posterior" moves the standard deviation too. PhotoGuard (arXiv 2302.06588), Mist
(2305.12683) and PID (2406.00816) are presets: see `settings.ENCODER_PRESETS`.

δ keeps to three bounds at once: the budget at each value, less of it where the picture is flat, and the PSNR.
A picture without colour stays without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.protect.aims import Aims, rms
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.settings import EncoderSettings
from unlikeness.protect.surrogates import Models, Surrogate
from unlikeness.protect.trainers_view import PLAIN, VIEWS
from unlikeness.seeds import uniform

__all__ = ["Encoder", "EncoderSettings", "room"]

_MOMENTUM = 0.9
_LAST_STEP = 0.2
"""Of the first step's size."""
_GAIN = 0.005
"""Of the objective: a picture rests once a round of views has gained less over the round before."""
_COLOUR = 1.5 / 255
"""Largest difference between the channels of a picture without colour."""
_CONTRAST = 0.02
"""Local contrast (see `room`) that hides half of what strong texture hides."""


@dataclass
class _Batch:
    """What is remembered of the batch that is being protected.

    limit: largest change of each value [B, 1, H, W]. grey: [B, 1, 1, 1], bool. aims: where latents come from
    or go to, by surrogate and view. speed: the accumulated gradient. values: the objective at each step, [B].
    """

    limit: Tensor
    grey: Tensor
    speed: Tensor
    rests: Tensor
    original: Tensor
    aims: dict[tuple[Surrogate, int], Tensor] = field(default_factory=dict)
    values: list[Tensor] = field(default_factory=list)


class Encoder(GradientProtection[EncoderSettings]):
    """Moves the latents of autoencoders away from the picture's. Autoencoders alone are enough.

    UsageError for a target that is no picture.
    """

    settings_type = EncoderSettings

    def __init__(self, models: Models, settings: EncoderSettings) -> None:
        super().__init__(models, settings)
        self._views = VIEWS if settings.transforms else (PLAIN,)
        self._aims = Aims(settings.target, posterior=settings.objective == "posterior")
        self._batch: _Batch
        self.begin(torch.zeros(1, 3, 8, 8))

    @property
    def fingerprint(self) -> str:
        """Of the models, and of a target picture."""
        return " ".join(filter(None, (super().fingerprint, self._aims.fingerprint)))

    def begin(self, original: Tensor) -> None:
        """See `GradientProtection.begin`."""
        limit = room(original, self.settings.flat) * (self.settings.budget / 255)
        colour = (original.amax(1) - original.amin(1)).flatten(1).amax(1)
        rests = torch.zeros(len(original), dtype=torch.bool, device=original.device)
        grey = (colour <= _COLOUR).view(-1, 1, 1, 1)
        self._batch = _Batch(limit, grey, torch.zeros_like(original), rests, original)

    def start(self, original: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Uniform in half of the limits: at the picture itself the distance has no gradient."""
        return self.project(original + 0.5 * self._batch.limit * uniform(original, generators), original)

    def gradient(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """See `GradientProtection.gradient`: through the next view."""
        self._batch.values.append(torch.zeros(len(images), device=images.device))
        return super().gradient(images, generators)

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: how far latents are from the original's, or minus how far from the target's; 1: a picture."""
        batch, sign = self._batch, -1 if self.settings.objective == "target" else 1
        turn = (len(batch.values) - 1) % len(self._views)
        view, shape = self._views[turn], (surrogate.resolution, surrogate.autoencoder.factor)
        seen = view(view.compress(images, generators), *shape)
        if (surrogate, turn) not in batch.aims:
            with torch.no_grad():
                aim = self._aims.latents(surrogate, view(batch.original, *shape))
                if sign < 0:
                    aim = self._aims.farthest(surrogate, aim, *seen.shape[-2:])
            batch.aims[surrogate, turn] = aim
        latents = self._aims.latents(surrogate, seen)
        value = sign * rms(latents - batch.aims[surrogate, turn]) / self._aims.spread(surrogate)
        batch.values[-1] += value.detach().to(images.device)
        return value

    def step(self, gradient: Tensor) -> Tensor:
        """With momentum, shorter from step to step, longest where there is room."""
        batch = self._batch
        if bool(batch.grey.any()):
            gradient = torch.where(batch.grey, gradient.mean(1, keepdim=True), gradient)
        batch.speed = _MOMENTUM * batch.speed + _unit(gradient)
        done = (len(batch.values) - 1) / self.settings.steps
        size = self.settings.step_size / 255 * (1 - (1 - _LAST_STEP) * done)
        return _unit(batch.speed * batch.limit) * size

    def project(self, images: Tensor, original: Tensor) -> Tensor:
        """Within the limit of each value and within [0, 1], then evenly weakened to the PSNR."""
        limit = self._batch.limit
        delta = torch.clamp(images - original, -limit, limit)
        delta = torch.where(self._batch.grey, delta.mean(1, keepdim=True), delta)
        delta = torch.clamp(original + delta, 0, 1) - original
        most = 10 ** (-self.settings.psnr / 20)
        return original + delta * (most / rms(delta).clamp_min(most)).view(-1, 1, 1, 1).to(delta)

    def rests(self) -> Tensor:
        """See `GradientProtection.rests`: whose objective no longer rises."""
        batch, count = self._batch, len(self._views)
        done = len(batch.values)
        if done % count == 0 and done >= 2 * count:
            late = torch.stack(batch.values[done - count :]).mean(0)
            early = torch.stack(batch.values[done - 2 * count : done - count]).mean(0)
            batch.rests |= late - early < _GAIN * late.abs()
        return batch.rests

    def check(self) -> None:
        """See `GradientProtection.check`; the batch that is being protected is kept."""
        batch = self._batch
        try:
            super().check()
        finally:
            self._batch = batch


def room(images: Tensor, flat: float) -> Tensor:
    """The share of the budget that each pixel can take, [B, 1, H, W] in [`flat`, 1].

    A change is less visible where the picture itself varies (contrast masking, Watson 1993). The contrast is
    what the luminance differs from its mean over 7 × 7 pixels, as the root mean square over as many: shading
    hides nothing. It is the least of that over 3 × 3, so that the flat side of an edge counts as flat.
    """
    if flat == 1:
        return torch.ones_like(images[:, :1])
    luminance = (images * images.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)
    variance = _mean((luminance - _mean(luminance)).square())
    energy = F.max_pool2d(-variance, 3, 1, 1).square()
    return flat + (1 - flat) * energy / (energy + _CONTRAST**4)


def _mean(planes: Tensor) -> Tensor:
    """Over 7 × 7 pixels; the border is repeated."""
    return F.avg_pool2d(F.pad(planes, (3, 3, 3, 3), mode="replicate"), 7, 1)


def _unit(x: Tensor) -> Tensor:
    """Each picture's values with a root mean square of 1; zeros stay zeros."""
    x = x / x.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30)  # a small gradient's squares are zero
    return x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)
