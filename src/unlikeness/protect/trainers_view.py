"""What trainers and websites do to a picture before an autoencoder sees it, for an expectation over it.

A gradient method goes through `VIEWS` in turn, one a step. The size is the same for all pictures of a batch;
the quality of a JPEG is each picture's own draw.

- Sides: trainers show pictures at several sides, and a website may have halved a picture before.
- Filters: bilinear (diffusers), bicubic (ai-toolkit), area (kohya).
- Crops that shift the autoencoder's grid, flips, and JPEG of quality 60 to 90.
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
    """One way to see a picture.

    share: of the side at which the trainer of a model shows pictures. filter: of the resizing. shift: pixels
    cut off at the left and top, at most an eighth of the side. flipped: left and right. compressed: JPEG
    before the resizing.
    """

    share: float = 1.0
    filter: str = "bilinear"
    shift: int = 0
    flipped: bool = False
    compressed: bool = False

    def __call__(self, images: Tensor, side: int, multiple: int) -> Tensor:
        """[B, 3, H, W] in [0, 1], resized until the short side is about `share` times `side`; differentiable.

        Sides become multiples of `multiple` px, the nearest. A smaller picture is not enlarged beyond that.
        """
        cut = min(self.shift, min(images.shape[-2:]) // 8)
        images = images[..., cut:, cut:]
        height, width = images.shape[-2:]
        factor = min(self.share * side / min(height, width), 1.0)
        size = [max(round(length * factor / multiple), 1) * multiple for length in (height, width)]
        if size != [height, width]:
            if self.filter == "area":
                images = F.interpolate(images, size, mode="area")
            else:
                images = F.interpolate(images, size, mode=self.filter, antialias=True, align_corners=False)
        return images.flip(-1) if self.flipped else images

    def compress(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The pictures through JPEG and back, if they are compressed; a quality from each generator."""
        if not self.compressed:
            return images
        return jpeg(images.float(), integers(*_QUALITIES, generators)).to(images)


PLAIN = View()

VIEWS = (
    View(),
    View(0.5, "bicubic", compressed=True),
    View(0.75, "area", shift=3),
    View(0.5, flipped=True, shift=5),
    View(1.5, compressed=True),
    View(0.625, "bicubic"),
)  # fmt: skip
"""Chosen on photographs for one figure: the mean displacement as it is, after JPEG, and at half the side."""
