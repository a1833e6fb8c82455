"""What trainers and websites do to a picture before an autoencoder sees it, for an expectation over it.

A gradient method goes through `VIEWS` in turn, one a step. The size is the same for all pictures of a batch;
the quality of a JPEG is each picture's own draw.

- Websites: JPEG of quality 60 to 90, and half the size.
- Trainers: they resize a picture to their own side, bilinearly (diffusers), bicubically (ai-toolkit)
  or by areas (kohya); they crop, which shifts the autoencoder's grid, and flip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.protect.rid.train.augment import jpeg
from unlikeness.seeds import integers

__all__ = ["PLAIN", "VIEWS", "View"]

_QUALITIES = (60, 91)


@dataclass(frozen=True)
class View:
    """One way to see a picture; in this order:

    compressed: through JPEG. shift: pixels cut off at the left and top, at most an eighth of the side.
    shrunk: to this share of its side, bicubically. share: the short side becomes this share of the trainer's;
    below 1 it costs less. filter: of that resizing. flipped: left and right.
    """

    share: float = 1.0
    filter: str = "bilinear"
    shrunk: float = 1.0
    shift: int = 0
    flipped: bool = False
    compressed: bool = False

    def __call__(self, images: Tensor, side: int, multiple: int) -> Tensor:
        """[B, 3, H, W] in [0, 1] as a trainer of `side` px sees them, apart from JPEG; differentiable.

        Sides become multiples of `multiple` px, the nearest. A picture is not enlarged beyond `side`.
        """
        cut = min(self.shift, min(images.shape[-2:]) // 8)
        images = images[..., cut:, cut:]
        short = min(images.shape[-2:])
        factor = min(self.share * side, max(short, side)) / short
        size = [max(round(length * factor / multiple), 1) * multiple for length in images.shape[-2:]]
        if self.shrunk < 1:
            images = _resized(images, [max(round(n * self.shrunk), 1) for n in images.shape[-2:]], "bicubic")
        images = _resized(images, size, self.filter)
        return images.flip(-1) if self.flipped else images

    def compress(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The pictures through JPEG and back, if they are compressed; a quality from each generator."""
        if not self.compressed:
            return images
        return jpeg(images.float(), integers(*_QUALITIES, generators)).to(images)


def _resized(images: Tensor, size: list[int], kind: str) -> Tensor:
    if list(images.shape[-2:]) == size:
        return images
    if kind == "area":
        return F.interpolate(images, size, mode="area")
    return F.interpolate(images, size, mode=kind, antialias=True, align_corners=False)


PLAIN = View()

VIEWS = (
    View(),
    View(0.75, "area", shrunk=0.5),
    View(0.75, shift=3, compressed=True),
    View(0.5, "bicubic", shrunk=0.5, flipped=True, compressed=True),
)  # fmt: skip
