"""Differentiable augmentations (JPEG, blur, noise, rescaling) for robust perturbations.

Each takes images [B, 3, H, W] in [0, 1]. `Augment` draws one or none for a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.errors import UsageError

__all__ = [
    "FILTERS", "TRAINER", "Augment", "View", "blur", "jpeg", "noise", "quantisation", "rescale", "shrunk",
]  # fmt: skip

View = Callable[[Tensor], Tensor]

FILTERS = ("bilinear", "bicubic", "area")
"""How trainers make pictures smaller: those of diffusers, ai-toolkit and kohya, in this order."""

# ITU-T T.81, tables K.1 and K.2, in rows of eight horizontal frequencies.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)  # fmt: skip

# JFIF 1.02: Y, Cb and Cr (both around 0) from R, G, B; and what Cb and Cr add to R, G, B.
_TO_LUMA = ((0.299, 0.587, 0.114),)
_TO_CHROMA = ((-0.299 / 1.772, -0.587 / 1.772, 0.5), (0.5, -0.587 / 1.402, -0.114 / 1.402))
_FROM_CHROMA = ((0.0, 1.402), (-0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587), (1.772, 0.0))


def jpeg(images: Tensor, quality: Tensor | float, subsample: bool = True) -> Tensor:
    """Through JPEG and back (ITU-T T.81, JFIF 1.02) in libjpeg's whole-number arithmetic.

    The gradient of rounding counts as 1 everywhere. Colours and cosines are then their own inverse, and only
    the gradients of halving the chroma and of the clamp remain.

    Args:
        images: [B, 3, H, W] in [0, 1], of any size; the edge is repeated to whole blocks, as libjpeg does.
        quality: 1 to 100, rounded to a whole number; one, or one a picture [B].
        subsample: 4:2:0, as Pillow writes by default: chroma at half the size, by the mean of 2 × 2, and up
            again bilinearly ("fancy upsampling"). False: 4:4:4.

    Returns:
        Like `images`: the 8-bit values of the decoder, in [0, 1]. Computed in float32 at least.
    """
    tables = quantisation(quality).to(images.device)
    with torch.autocast(images.device.type, enabled=False):
        x = images.to(torch.promote_types(images.dtype, torch.float32))
        with torch.no_grad():
            coded = _coded(x * 255, tables, subsample) / 255
        smooth = x
        if subsample:
            height, width = x.shape[-2:]
            odd = (0, width % 2, 0, height % 2)
            chroma = _mix(F.pad(x, odd, mode="replicate") if any(odd) else x, _TO_CHROMA)
            lost = (chroma - _doubled(F.avg_pool2d(chroma, 2)))[..., :height, :width]
            smooth = x - _mix(lost, _FROM_CHROMA)
        return (smooth + (coded - smooth).detach()).clamp(0, 1).to(images.dtype)


def _coded(x: Tensor, tables: Tensor, subsample: bool) -> Tensor:
    """x [B, 3, H, W] in [0, 255] as the decoder returns it, before clamping."""
    height, width = x.shape[-2:]
    block = 16 if subsample else 8
    x = F.pad(x.round(), (0, -width % block, 0, -height % block), mode="replicate")
    luma, chroma = (_mix(x, _TO_LUMA) - 128).round_(), _mix(x, _TO_CHROMA).round_()
    if subsample:
        # libjpeg rounds the halves of even columns down and those of odd ones up.
        halves = chroma.new_tensor((0.25, 0.5)).repeat(chroma.shape[-1] // 4)
        chroma = (F.avg_pool2d(chroma, 2) + halves).floor_()
    luma, chroma = _quantised(luma, tables[:, :1]), _quantised(chroma, tables[:, 1:])
    if subsample:
        # What was added beyond the picture's edge takes no part in the upsampling.
        chroma = _doubled(chroma[..., : (height + 1) // 2, : (width + 1) // 2]).round_()
    luma, chroma = luma[..., :height, :width], chroma[..., :height, :width]
    return (luma + 128 + _mix(chroma, _FROM_CHROMA)).round_()


def quantisation(quality: Tensor | float) -> Tensor:
    """libjpeg's tables for qualities [B] (or one): [B or 1, 2, 64], luminance then chrominance, by rows.

    UsageError for a quality outside 1 to 100.
    """
    q = torch.as_tensor(quality, device="cpu").reshape(-1, 1, 1).double().round().long()
    if not len(q) or q.min() < 1 or q.max() > 100:
        raise UsageError(f"a JPEG's quality must be 1 to 100, not {quality}")
    percent = torch.where(q < 50, 5000 // q, 200 - 2 * q)
    base = torch.tensor([_LUMINANCE, _CHROMINANCE]).reshape(1, 2, 64)
    return ((base * percent + 50) // 100).clamp(1, 255)


def _mix(planes: Tensor, weights: tuple[tuple[float, ...], ...]) -> Tensor:
    """Another set of colour planes: weights [D, C] times planes [B, C, H, W]."""
    mixed = planes.new_tensor(weights) @ planes.flatten(2)
    return mixed.reshape(len(planes), len(weights), *planes.shape[2:])


def _doubled(planes: Tensor) -> Tensor:
    """Twice as high and wide: libjpeg's fancy upsampling, three quarters of the nearest, one of the next."""
    return F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)


def _quantised(planes: Tensor, tables: Tensor) -> Tensor:
    """Planes [B, C, 8m, 8n] in -128 to 127 with DCT coefficients rounded to tables [B or 1, 1, 64]."""
    b, c, height, width = planes.shape
    cosines = _dct(planes)
    steps = tables[:, :, None].to(planes)
    blocks = planes.reshape(b, c, height // 8, 8, width // 8, 8).transpose(3, 4).reshape(b, c, -1, 64)
    # A little more than the quotient: halves are rounded away from zero, as libjpeg does.
    coefficients = (blocks @ cosines.T).mul_(1.0001 / steps).round_()
    blocks = coefficients.mul_(steps) @ cosines
    blocks = blocks.reshape(b, c, height // 8, width // 8, 8, 8).transpose(3, 4).reshape(planes.shape)
    return blocks.round_().clamp_(-128, 127)


def _dct(like: Tensor) -> Tensor:
    """[64, 64], orthonormal: row 8v + u is the cosine of frequencies v down and u across an 8 × 8 block."""
    n = torch.arange(8, dtype=torch.float64)
    waves = torch.cos((2 * n + 1) * n[:, None] * math.pi / 16) / 2
    waves[0] /= math.sqrt(2)
    return torch.kron(waves, waves).to(like)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of standard deviation sigma [px], cut at 3 σ; the edge is repeated outwards."""
    if sigma <= 0:
        return images
    radius = math.ceil(3 * sigma)
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (at / sigma) ** 2)
    weights = (weights / weights.sum()).to(images).expand(3, 1, -1)
    with torch.autocast(images.device.type, enabled=False):
        wide = F.pad(images, (radius,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(wide, weights[..., None], groups=3), weights[:, :, None], groups=3)


def noise(images: Tensor, sigma: Tensor | float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of standard deviation sigma [n/255; one, or one a picture, [B]], kept within [0, 1].

    Drawn on the generator's device.
    """
    drawn = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
    each = torch.as_tensor(sigma).to(images).reshape(-1, 1, 1, 1)
    return (images + drawn * each / 255).clamp(0, 1)


def rescale(images: Tensor, factor: float) -> Tensor:
    """Down to `factor` (above 0, at most 1) of the size and up again, bilinear, antialiased."""
    height, width = images.shape[-2:]
    small = (max(round(height * factor), 1), max(round(width * factor), 1))
    if small == (height, width):
        return images
    down = F.interpolate(images, small, mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(down, (height, width), mode="bilinear", align_corners=False)


def shrunk(images: Tensor, factor: float, how: str) -> Tensor:
    """Down to `factor` (above 0, at most 1) of the size, to whole 8 px; how: one of `FILTERS`."""
    height, width = (max(round(side * factor / 8) * 8, 8) for side in images.shape[-2:])
    if how == "area":
        return F.interpolate(images, (height, width), mode="area")
    return F.interpolate(images, (height, width), mode=how, align_corners=False, antialias=True).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Degrades each batch in one way, or in none, drawn from a generator.

    jpeg, rescale, blur, noise, shrink: probabilities; the rest of 1 leaves the batch as it is.
    quality [1 to 100], factor [of the side], blur_sigma [px], noise_sigma [n/255]: ranges of the strength.
    All values are ours; results are given at JPEG 75 and at half the size.
    """

    jpeg: float = 0.2
    rescale: float = 0.15
    blur: float = 0.1
    noise: float = 0.05
    shrink: float = 0.0
    quality: tuple[int, int] = (50, 95)
    factor: tuple[float, float] = (0.5, 0.9)
    blur_sigma: tuple[float, float] = (0.3, 1.0)
    noise_sigma: tuple[float, float] = (1.0, 8.0)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """images [B, 3, H, W] in [0, 1] -> the same range, differentiable; the same shape unless shrunk.

        Each picture gets its own quality of JPEG or strength of noise; blur and size are the same for all.
        `generator` is a CPU one, so that the draws are the same on every device.
        """
        return self.drawn(len(images), generator)(images)

    def drawn(self, count: int, generator: torch.Generator) -> View:
        """One way, for batches of `count` pictures. It does the same to every batch that it is given."""
        bounds = list(accumulate((self.jpeg, self.rescale, self.blur, self.noise, self.shrink)))
        kind, strength = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        if kind < bounds[0]:
            low, high = self.quality
            quality = torch.randint(low, high + 1, (count,), generator=generator)
            return lambda images: jpeg(images, quality)
        if kind < bounds[1]:
            return lambda images: rescale(images, _between(self.factor, strength))
        if kind < bounds[2]:
            return lambda images: blur(images, _between(self.blur_sigma, strength))
        if kind < bounds[3]:
            sigma = torch.rand(count, generator=generator)
            least, most = self.noise_sigma
            state = generator.get_state()

            def noised(images: Tensor) -> Tensor:
                generator.set_state(state)
                return noise(images, least + (most - least) * sigma, generator)

            return noised
        if kind < bounds[4]:
            how = FILTERS[int(torch.randint(len(FILTERS), (), generator=generator))]
            return lambda images: shrunk(images, _between(self.factor, strength), how)
        return lambda images: images


TRAINER = Augment(jpeg=0.25, rescale=0.0, blur=0.05, noise=0.05, shrink=0.35, factor=(0.45, 1.0))
"""What happens to a picture on its way into a trainer: often nothing, often JPEG or another size."""


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * share
