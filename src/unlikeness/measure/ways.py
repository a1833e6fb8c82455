"""What happens to a picture between its file and a trainer's autoencoder: compression, resizing, cropping."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unlikeness.errors import PictureError
from unlikeness.pictures import open_picture
from unlikeness.viewing import viewed

__all__ = ["MOST_PIXELS", "WAYS", "noisy", "opened_pair", "seen"]

MOST_PIXELS = 1 << 22
"""Larger pictures are first shrunk to 4 megapixels or less, as platforms do."""
_LONGEST = 8
"""Longer pictures than so many times their short side lose their ends: the autoencoder sees the middle."""
_BAND = 1 << 20  # pixels of a large picture that are floats at a time


def _jpeg(quality: int) -> Callable[[Tensor], Tensor]:
    def compress(image: Tensor) -> Tensor:
        file = io.BytesIO()
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) / 255

    return compress


def _halved(image: Tensor) -> Tensor:
    size = [max(side // 2, 1) for side in image.shape[-2:]]
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)


WAYS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda image: image,
    "JPEG 75": _jpeg(75),
    "JPEG 50": _jpeg(50),
    "half size": _halved,
}
"""What happens to a picture [3, H, W] in [0, 1] before a trainer sees it."""


def seen(image: Tensor, size: int) -> Tensor:
    """[3, size, size]: the short side resized to `size`, as trainers do (bilinear); the middle square."""
    whole = viewed(image[None], size)[0].clamp(0, 1)
    top, left = ((side - size) // 2 for side in whole.shape[-2:])
    return whole[:, top : top + size, left : left + size]


def noisy(original: Tensor, protected: Tensor, generator: torch.Generator) -> Tensor:
    """`original` [3, H, W] with Gaussian noise of the energy of the change to `protected`, in steps of 1/255.

    Values that would leave [0, 1] are clamped. The noise is made stronger to make up for it.
    """
    energy = float((protected - original).square().mean(dtype=torch.float64))
    noise = torch.randn(original.shape, generator=generator)
    deviation = math.sqrt(energy)
    noised = original
    for _ in range(4 if energy else 0):
        noised = ((original + deviation * noise).clamp(0, 1) * 255).round() / 255
        reached = float((noised - original).square().mean(dtype=torch.float64))
        deviation *= math.sqrt(energy / max(reached, 1e-12))
    return noised


def opened_pair(original: Path, protected: Path, max_pixels: int) -> tuple[Tensor, Tensor]:
    """Both pictures, [3, H, W] in [0, 1], of `MOST_PIXELS` at most, without the ends of a long strip.

    PictureError if one cannot be read, is larger than `max_pixels`, or if their sizes differ.
    """
    a, b = (open_picture(file, max_pixels=max_pixels) for file in (original, protected))
    if a.size != b.size:
        (width, height), (w, h) = a.size, b.size
        raise PictureError(
            f"{protected}: {w} × {h} px, but its original has {width} × {height}; "
            "compare pictures of one size"
        )
    return _shrunk(a.window, a.size), _shrunk(b.window, b.size)


def _shrunk(window: Callable[[int, int, int, int], NDArray[np.float32]], size: tuple[int, int]) -> Tensor:
    """Means of k × k pixels, where k is the least that makes the picture small enough."""
    most = _LONGEST * min(size)
    x, y = (max(side - most, 0) // 2 for side in size)
    width, height = (min(side, most) for side in size)
    k = math.ceil(math.sqrt(width * height / MOST_PIXELS))
    k = max(1, min(k, width, height))
    right, end, rows = x + width // k * k, y + height // k * k, max(_BAND // (width * k), 1) * k
    bands = []
    for top in range(y, end, rows):
        band = torch.from_numpy(window(top, min(top + rows, end), x, right)).permute(2, 0, 1)
        bands.append(F.avg_pool2d(band[None], k)[0] if k > 1 else band)
    return torch.cat(bands, 1)
