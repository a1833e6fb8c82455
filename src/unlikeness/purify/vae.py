"""The autoencoder's round trip: details that it cannot express are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.purify.base import PictureByPicture
from unlikeness.purify.settings import VaeSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Vae", "VaeSettings"]


class Vae(PictureByPicture[VaeSettings]):
    """Encodes the picture and decodes the posterior's mean, at the picture's size. The seed has no effect."""

    settings_type = VaeSettings
    needs_model = True

    def __init__(self, model: TextToImage | None, settings: VaeSettings) -> None:
        super().__init__(model, settings)
        if model is None:
            raise UsageError("purification vae needs a model whose autoencoder it can use; give one")
        self.model = model

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`. The edge is repeated to whole latents."""
        height, width = image.shape[-2:]
        cell = self.model.autoencoder.factor
        whole = F.pad(image[None], (0, -width % cell, 0, -height % cell), mode="replicate")
        return self.model.decode(self.model.encode(whole).mean)[0, :, :height, :width]
