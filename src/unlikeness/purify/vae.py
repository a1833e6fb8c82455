"""The autoencoder's round trip: details that it cannot express are lost."""

from __future__ import annotations

from torch import Tensor

from unlikeness.purify.base import Model, PictureByPicture, autoencoder_of
from unlikeness.purify.settings import VaeSettings
from unlikeness.purify.tiles import by_tiles

__all__ = ["Vae", "VaeSettings"]


class Vae(PictureByPicture[VaeSettings]):
    """Encodes the picture and decodes the posterior's mean, at the picture's size, in tiles. The seed has no
    effect. model: a model, or an autoencoder alone; None if the settings name an autoencoder."""

    settings_type = VaeSettings

    def __init__(self, model: Model | None, settings: VaeSettings) -> None:
        super().__init__(model, settings)
        self.autoencoder = autoencoder_of(model, settings, "vae")
        self.fingerprint = self.autoencoder.fingerprint

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`. The edge is repeated to whole latents."""
        side = self.settings.tile
        return by_tiles(image, self._trip, side=side, cell=self.autoencoder.factor, overlap=side // 4)

    def _trip(self, tile: Tensor, number: int) -> Tensor:
        return self.autoencoder.decode(self.autoencoder.encode(tile).mean)
