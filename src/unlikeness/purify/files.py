"""What is done to a picture's file: Pillow's tools, on 8 bits a channel."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unlikeness.purify.base import P, PictureByPicture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ThroughPillow"]


class ThroughPillow(PictureByPicture[P]):
    """A purification that Pillow does: the picture is rounded to 8 bits first, and no seed matters."""

    @abstractmethod
    def edit(self, picture: Image) -> Image:
        """The washed picture: RGB, of the same size."""

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""
        from PIL import Image

        pixels = (image.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        washed = np.array(self.edit(Image.fromarray(pixels)))
        return torch.from_numpy(washed).permute(2, 0, 1).float() / 255
