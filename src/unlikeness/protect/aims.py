"""What a method on latents measures and aims at: latents, targets, and the distance of two pictures."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness import finite
from unlikeness.errors import PictureError, UsageError
from unlikeness.protect.rid.train.pictures import dead_leaves
from unlikeness.protect.surrogates import Surrogate

__all__ = ["Aims", "read_target", "rms"]

_OTHERS = 6
_SIDE = 128
"""Number and side [px] of the synthetic pictures that stand for other pictures."""


class Aims:
    """Latents, and where they are pulled.

    Args:
        target: farthest (of a few synthetic pictures, the one that is farthest from each picture), grey (a
            mid-grey picture), zero (the zero latent), pattern (black and white squares), or a picture's path.
        posterior: whether the latents include the posterior's standard deviation.

    UsageError for a target that is none of these and no picture.
    """

    def __init__(self, target: str = "farthest", *, posterior: bool = False) -> None:
        self._posterior = posterior
        self._zero = target == "zero"
        self.fingerprint = ""
        if target == "farthest":
            self._pictures = _others()
        elif target == "grey" or self._zero:
            self._pictures = torch.full((1, 3, 8, 8), 0.5)
        elif target == "pattern":
            self._pictures = _squares()
        else:
            self._pictures = read_target(Path(target), "farthest, grey, zero, pattern")
            self.fingerprint = hashlib.sha256(self._pictures.numpy().tobytes()).hexdigest()[:16]
        self._spreads: dict[Surrogate, Tensor] = {}
        self._targets: dict[tuple[Surrogate, int, int], Tensor] = {}

    def latents(self, surrogate: Surrogate, images: Tensor) -> Tensor:
        """[B, C, h, w] of pictures at the size that they have; [B, 2C, h, w] with the posterior."""
        posterior = surrogate.autoencoder.encode(images.to(surrogate.device))
        return torch.cat([posterior.mean, posterior.std], 1) if self._posterior else posterior.mean

    @torch.no_grad()
    def spread(self, surrogate: Surrogate) -> Tensor:
        """The distance between two pictures' latents: `rms` over pairs of synthetic pictures, their mean."""
        if surrogate not in self._spreads:
            found = self._encoded(surrogate, _others())
            pairs = [rms(a - b) for i, a in enumerate(found) for b in found[:i]]
            self._spreads[surrogate] = torch.stack(pairs).mean().clamp_min(1e-6)
        return self._spreads[surrogate]

    @torch.no_grad()
    def farthest(self, surrogate: Surrogate, clean: Tensor, height: int, width: int) -> Tensor:
        """For each picture the target's latent that is farthest from its own: like `clean` [B, C, h, w].

        height, width: of the pictures [px]; a target is resized to them.
        """
        if self._zero:
            return torch.zeros_like(clean)
        key = (surrogate, height, width)
        if key not in self._targets:
            like = F.interpolate(self._pictures, (height, width), mode="bilinear", antialias=True)
            self._targets[key] = self._encoded(surrogate, like)
        targets = self._targets[key]
        away = (clean[:, None] - targets[None]).float().square().flatten(2).mean(2)
        return targets[away.argmax(1)]

    def _encoded(self, surrogate: Surrogate, pictures: Tensor) -> Tensor:
        found = torch.cat([self.latents(surrogate, picture[None]) for picture in pictures])
        finite.check(found, finite.ENCODER, surrogate.autoencoder.dtype)
        return found


def rms(x: Tensor) -> Tensor:
    """The root of the mean square over the last three dimensions; float32 at least.

    A millionth is added below the root, so that its gradient is finite at 0.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return (x.square().mean((-3, -2, -1)) + 1e-12).sqrt()


def read_target(path: Path, known: str = "grey, zero") -> Tensor:
    """A target picture as [1, 3, H, W] in [0, 1]. UsageError, which lists the `known` names, if not."""
    from unlikeness.pictures import open_picture

    try:
        picture = open_picture(path)
    except PictureError as error:
        raise UsageError(f"target must be {known} or a picture: {error}") from error
    return torch.from_numpy(picture.rgb).permute(2, 0, 1)[None].contiguous()


def _squares() -> Tensor:
    """A picture of black and white squares, 16 a side."""
    place = torch.arange(_SIDE) // (_SIDE // 16)
    return ((place[:, None] + place) % 2).float().expand(1, 3, -1, -1).contiguous()


@cache
def _others() -> Tensor:
    """The synthetic pictures [6, 3, 128, 128]."""
    drawn = [dead_leaves(np.random.default_rng(seed), _SIDE) for seed in range(_OTHERS)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous().float() / 255
