"""What all purifications share: pictures in, pictures out, each on its own.

Images are [B, 3, H, W] in [0, 1]. Nothing here is differentiable: attackers do this to files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.purify.settings import PurifySettings

if TYPE_CHECKING:
    from PIL.Image import Image

    from unlikeness.diffusion.model import TextToImage

__all__ = ["PictureByPicture", "Purifier", "PurifySettings", "ThroughPillow"]


P = TypeVar("P", bound=PurifySettings)


class Purifier(Protocol):
    """A purification. It is made from its settings."""

    @property
    def settings(self) -> PurifySettings: ...

    def purify(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Wash a batch.

        Args:
            images: [B, 3, H, W] in [0, 1], of any size.
            seeds: B numbers; picture i depends on `images[i]` and `seeds[i]` only.

        Returns:
            [B, 3, H, W] in [0, 1]; same dtype and device, without a gradient.
        """


class PictureByPicture(ABC, Generic[P]):
    """A purification that works picture by picture: the rest of the batch has no influence.

    Args:
        model: the attacker's own, for a method that needs one (`needs_model`).
        settings: the method's own.
    """

    settings_type: ClassVar[type[PurifySettings]]
    needs_model: ClassVar[bool] = False

    def __init__(self, model: TextToImage | None, settings: P) -> None:
        self.settings = settings

    @abstractmethod
    def one(self, image: Tensor, seed: int) -> Tensor:
        """image [3, H, W] in [0, 1] -> the washed one, of the same size."""

    @torch.no_grad()
    def purify(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `Purifier.purify`.

        Raises:
            UsageError: not one seed a picture, or pictures of another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        if len(seeds) != len(images):
            raise UsageError(f"purify needs one seed a picture: {len(images)} pictures, {len(seeds)} seeds")
        washed = torch.empty_like(images)
        for i, seed in enumerate(seeds):
            washed[i] = self.one(images[i], seed).clamp(0, 1)
        return washed


class ThroughPillow(PictureByPicture[P]):
    """A purification by Pillow. The picture is rounded to 8 bits first; the seed has no effect."""

    @abstractmethod
    def edit(self, picture: Image) -> Image:
        """The washed picture: RGB, of the same size."""

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""
        from PIL import Image

        pixels = (image.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        washed = np.array(self.edit(Image.fromarray(pixels)))
        return torch.from_numpy(washed).permute(2, 0, 1).float() / 255
