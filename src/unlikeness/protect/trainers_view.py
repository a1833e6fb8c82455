"""What trainers and websites do to a picture before an autoencoder sees it, for an expectation over it.

A gradient method goes through `VIEWS` in turn, one a step. The size is the same for all pictures of a batch;
the quality of a JPEG is each picture's own draw.

- Websites: JPEG of quality 60 to 90, and half the size.
- Trainers: they resize a picture to their own side, bilinearly (diffusers), bicubically (ai-toolkit)
  or by areas (kohya); they crop, which shifts the autoencoder's grid, and flip. In an aspect bucket the short
  side of a photograph is shorter than the side: 0.81 of it for 3 : 2, 0.75 for 16 : 9.
- Larger pictures: sides of 768 and 1024 px beside 512. Of these a crop of 512 px is seen, which costs no
  more time or memory than the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.protect.rid.train.augment import jpeg
from unlikeness.seeds import integers

__all__ = ["LARGE", "PLAIN", "VIEWS", "View"]

_QUALITIES = (60, 91)


@dataclass(frozen=True)
class View:
    """One way to see a picture; in this order:

    compressed: through JPEG. shift: pixels cut off at the left and top, at most an eighth of the side.
    shrunk: to this share of its side, bicubically. share: the short side becomes this share of the trainer's;
    below 1 it costs less. filter: of that resizing. corner: (down, across), the place of a crop of the
    trainer's side, 0 to 1; None: the whole. flipped: left and right.
    """

    share: float = 1.0
    filter: str = "bilinear"
    shrunk: float = 1.0
    shift: int = 0
    corner: tuple[float, float] | None = None
    flipped: bool = False
    compressed: bool = False

    def __call__(self, images: Tensor, side: int, multiple: int) -> Tensor:
        """[B, 3, H, W] in [0, 1] as a trainer of `side` px sees them, apart from JPEG; differentiable.

        Sides become multiples of `multiple` px, the nearest. A picture is not enlarged beyond `side`.
        """
        height, width = images.shape[-2:]
        cut = self._cut(height, width)
        images = images[..., cut:, cut:]
        size = self.size(height - cut, width - cut, side, multiple)
        if self.shrunk < 1:
            images = _resized(images, [max(round(n * self.shrunk), 1) for n in images.shape[-2:]], "bicubic")
        images = _resized(images, size, self.filter)
        if self.corner is not None:
            kept = max(side // multiple, 1) * multiple
            y, x = (round(at * max(n - kept, 0)) for at, n in zip(self.corner, size, strict=True))
            images = images[..., y : y + kept, x : x + kept]
        return images.flip(-1) if self.flipped else images

    def pixels(self, height: int, width: int, side: int, multiple: int) -> int:
        """How many pixels an autoencoder sees of a picture."""
        cut = self._cut(height, width)
        size = self.size(height - cut, width - cut, side, multiple)
        return math.prod(size if self.corner is None else [min(n, side) for n in size])

    def _cut(self, height: int, width: int) -> int:
        return min(self.shift, min(height, width) // 8)

    def size(self, height: int, width: int, side: int, multiple: int) -> list[int]:
        """Height and width that a picture is resized to."""
        short = min(height, width)
        factor = min(self.share * side, max(short, side)) / short
        return [max(round(length * factor / multiple), 1) * multiple for length in (height, width)]

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
    View(),
    View(0.8125, "bicubic", shift=3, flipped=True, compressed=True),
)  # fmt: skip
"""For pictures up to the trainer's side. Half of the steps see a picture as it is."""

LARGE = (
    VIEWS[0],
    View(1.5, corner=(0, 0)),
    VIEWS[1],
    View(2.0, "area", corner=(0, 1)),
    VIEWS[2],
    View(1.5, corner=(1, 1)),
    VIEWS[3],
    View(2.0, "area", corner=(1, 0)),
)
"""For larger pictures. A side beyond the picture's own is the picture's own."""
