"""Move what autoencoders see of a picture, through what trainers do to it; no denoiser takes part.

    max over δ:  mean over surrogates of ‖E(v(x + δ)) − E(v(x))‖ / s,   v from `trainers_view.VIEWS` in turn

E is the mean of the posterior, in the latents that a denoiser sees. s is the distance between two pictures'
latents, so that no surrogate outweighs another. The objective "target" lowers the distance to a target's
latent instead, and "posterior" moves the standard deviation too. PhotoGuard (arXiv 2302.06588), Mist
(2305.12683) and PID (2406.00816) are presets: see `settings.ENCODER_PRESETS`.

δ keeps to its bounds in every step: the PSNR; the budget at each value, less of it where the picture is flat
(`room`); and less again where a regular pattern would be noticed (`measure.patterns`). A picture without
colour stays without. The steps start from the perturbation of the network `rid-photo`, which costs a fraction
of a step and is worth several.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.measure.patterns import WINDOW, flat_places, strongest
from unlikeness.protect.aims import Aims, rms
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.rid.opening import Opened, open_network
from unlikeness.protect.settings import EncoderSettings
from unlikeness.protect.surrogates import Models, Surrogate
from unlikeness.protect.trainers_view import LARGE, PLAIN, VIEWS, View
from unlikeness.seeds import picture_generators, uniform

__all__ = ["Encoder", "EncoderSettings", "room"]

_MOMENTUM = 0.8
_LAST_STEP = 0.2
"""Of the first step's size."""
_GAIN = 0.005
"""Of the objective: a picture rests once a round of views has gained less over the round before."""
_COLOUR = 1.5 / 255
"""Largest difference between the channels of a picture without colour."""
_CONTRAST = 0.006
"""Local contrast (see `room`) that hides half of what strong texture hides."""
_NOTICED = 0.9
"""Strongest pattern that a flat window may hold: 1 is just noticed."""
_EVERY = 6
"""Steps from one look at the patterns to the next."""
_TRIES = 6
"""To find limits within which no pattern is noticed."""
_FORWARD = 0.45
"""Time of seeing a picture, as a share of that of a gradient."""
_NETWORK = "rid-photo"


@dataclass
class _Batch:
    """What is remembered of the batch that is being protected.

    limit: largest change of each value [B, 1, H, W]. flat: of each picture, the places of its flat windows.
    grey: [B, 1, 1, 1], bool. aims: where latents come from or go to, by surrogate and view. speed: the
    accumulated gradient. values: the objective at each step, [B].
    """

    limit: Tensor
    flat: list[list[tuple[int, int]]]
    grey: Tensor
    speed: Tensor
    rests: Tensor
    original: Tensor
    aims: dict[tuple[Surrogate, View], Tensor] = field(default_factory=dict)
    values: list[Tensor] = field(default_factory=list)


class Encoder(GradientProtection[EncoderSettings]):
    """Moves the latents of autoencoders away from the picture's. Autoencoders alone are enough.

    UsageError for a target that is no picture.
    """

    settings_type = EncoderSettings

    def __init__(self, models: Models, settings: EncoderSettings) -> None:
        super().__init__(models, settings)
        self._network: Opened | None = open_network(_NETWORK) if settings.start == "network" else None
        self._aims = Aims(settings.target, posterior=settings.objective == "posterior")
        self._batch: _Batch
        self.begin(torch.zeros(1, 3, 8, 8))

    @property
    def fingerprint(self) -> str:
        """Of the models, of the network that starts, and of a target picture."""
        network = "" if self._network is None else self._network.fingerprint
        return " ".join(filter(None, (super().fingerprint, network, self._aims.fingerprint)))

    def begin(self, original: Tensor) -> None:
        """See `GradientProtection.begin`."""
        limit = room(original, self.settings.flat) * (self.settings.budget / 255)
        colour = (original.amax(1) - original.amin(1)).flatten(1).amax(1)
        rests = torch.zeros(len(original), dtype=torch.bool, device=original.device)
        grey = (colour <= _COLOUR).view(-1, 1, 1, 1)
        bounded = self.settings.flat < 1
        flat = [flat_places(image)[0] if bounded else [] for image in original.float().cpu().numpy()]
        self._batch = _Batch(limit, flat, grey, torch.zeros_like(original), rests, original)
        large = min(original.shape[-2:]) > self.resolution
        self._views = (LARGE if large else VIEWS) if self.settings.transforms else (PLAIN,)

    def start(self, original: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The network's perturbation and a little noise, or uniform noise in half of the limits.

        At the picture itself the distance has no gradient.
        """
        noise = self._batch.limit * uniform(original, generators)
        if self._network is None:
            return self.project(original + 0.5 * noise, original)
        plane = torch.full_like(original[:, :1], self.settings.budget, dtype=torch.float32)
        delta = self._network.tensors(original.float(), plane).to(original)
        return self.project(original + delta + 0.1 * noise, original)

    def gradient(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """See `GradientProtection.gradient`: through the next view."""
        self._batch.values.append(torch.zeros(len(images), device=images.device))
        return super().gradient(images, generators)

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: how far latents are from the original's, or minus how far from the target's; 1: a picture."""
        batch, sign = self._batch, -1 if self.settings.objective == "target" else 1
        view = self._views[(len(batch.values) - 1) % len(self._views)]
        shape = (surrogate.resolution, surrogate.autoencoder.factor)
        seen = view(view.compress(images, generators), *shape)
        if (surrogate, view) not in batch.aims:
            with torch.no_grad():
                aim = self._aims.latents(surrogate, view(batch.original, *shape))
                if sign < 0:
                    aim = self._aims.farthest(surrogate, aim, *seen.shape[-2:])
            batch.aims[surrogate, view] = aim
        latents = self._aims.latents(surrogate, seen)
        value = sign * rms(latents - batch.aims[surrogate, view]) / self._aims.spread(surrogate)
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
        """Within the limit of each value and within [0, 1], then evenly weakened to the PSNR.

        Now and then, and after the last step, limits fall where a pattern would be noticed.
        """
        batch, done = self._batch, len(self._batch.values)
        moved = self._within(images, original)
        if done % _EVERY == 0 or done == self.settings.steps:
            for _ in range(_TRIES if any(batch.flat) else 0):
                if not self._lessen(moved, original):
                    break
                moved = self._within(images, original)
        return moved

    def _within(self, images: Tensor, original: Tensor) -> Tensor:
        limit = self._batch.limit
        delta = torch.clamp(images - original, -limit, limit)
        delta = torch.where(self._batch.grey, delta.mean(1, keepdim=True), delta)
        delta = torch.clamp(original + delta, 0, 1) - original
        most = 10 ** (-self.settings.psnr / 20)
        return original + delta * (most / rms(delta).clamp_min(most)).view(-1, 1, 1, 1).to(delta)

    def _lessen(self, images: Tensor, original: Tensor) -> bool:
        """Lower the limits where the pictures, in steps of 1/255, hold a noticed pattern; whether any was."""
        batch, found = self._batch, False
        for i, places in enumerate(batch.flat):
            if not places:
                continue
            before = original[i].float().cpu().numpy()
            after = ((images[i].float() * 255).round() / 255).cpu().numpy()
            share = torch.ones(1, 1, *before.shape[-2:])
            for (y, x), strength in zip(places, strongest(before, after, places)[0].tolist(), strict=True):
                if strength > _NOTICED:
                    window = share[..., y : y + WINDOW, x : x + WINDOW]
                    window.clamp_(max=(_NOTICED / strength) ** 0.5)
                    found = True
            batch.limit[i] *= _mean(-F.max_pool2d(-share, 7, 1, 3))[0].to(batch.limit)
        return found

    def rests(self) -> Tensor:
        """See `GradientProtection.rests`: whose objective no longer rises."""
        batch, count = self._batch, len(self._views)
        done = len(batch.values)
        if done % count == 0 and done >= 2 * count:
            late = torch.stack(batch.values[done - count :]).mean(0)
            early = torch.stack(batch.values[done - 2 * count : done - count]).mean(0)
            batch.rests |= late - early < _GAIN * late.abs()
        return batch.rests

    @torch.no_grad()
    def seconds(self, side: int, count: int) -> float:
        """An estimate for `count` squares of `side` px one by one, from one step: none ends early."""
        image = torch.linspace(0.25, 0.75, side, device=self.device).expand(1, 3, side, side)
        self.begin(image)
        generators = picture_generators([0])
        with self.surrogates.frozen():
            self.gradient(image, generators)  # the first one also sets things up, and sees the original
            self._batch.values.clear()
            began = time.perf_counter()
            self.gradient(image, generators)
            step = time.perf_counter() - began
        first = self.surrogates[0]
        shape = (first.resolution, first.autoencoder.factor)
        views = [self._views[k % len(self._views)] for k in range(self.settings.steps)]
        pixels = {view: view.pixels(side, side, *shape) for view in views}
        work = sum(pixels[view] for view in views) + _FORWARD * sum(pixels.values())
        return count * step * work / pixels[views[0]]

    def check(self) -> None:
        """See `GradientProtection.check`; the batch that is being protected is kept."""
        batch = self._batch
        try:
            super().check()
        finally:
            self._batch = batch


def room(images: Tensor, flat: float) -> Tensor:
    """The share of the budget that each pixel can take, [B, 1, H, W] in [`flat`, 1].

    A change is less visible where the picture itself varies (contrast masking, Watson 1993), but an edge
    hides no ripples beside it. So the contrast is that across the direction in which the picture varies most.
    It is the root of twice the lesser eigenvalue of the luminance's structure tensor over 7 × 7 pixels
    (Shi & Tomasi 1994), and of that the least over 3 × 3. Shading and straight edges have none.
    """
    if flat == 1:
        return torch.ones_like(images[:, :1])
    luminance = (images * images.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)
    wide = F.pad(luminance, (1, 1, 1, 1), mode="replicate")
    across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    xx, xy, yy = _mean(across * across), _mean(across * down), _mean(down * down)
    lesser = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    energy = -F.max_pool2d(-(2 * lesser).clamp_min(0), 3, 1, 1)
    return flat + (1 - flat) * energy.square() / (energy.square() + _CONTRAST**4)


def _mean(planes: Tensor) -> Tensor:
    """Over 7 × 7 pixels; the border is repeated."""
    return F.avg_pool2d(F.pad(planes, (3, 3, 3, 3), mode="replicate"), 7, 1)


def _unit(x: Tensor) -> Tensor:
    """Each picture's values with a root mean square of 1; zeros stay zeros."""
    x = x / x.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30)  # a small gradient's squares are zero
    return x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)
