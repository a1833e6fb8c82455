"""What all purifications share: pictures in, pictures out, each on its own.

Nothing here is differentiable: attackers do this to files. torch is imported only where a method needs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import UsageError
from unlikeness.purify.settings import AutoencoderSettings, PurifySettings

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from unlikeness.autoencoders import Autoencoder
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.purify.upscale import Upscaler

__all__ = [
    "Floats", "Model", "OfPixels", "PictureByPicture", "Purifier", "PurifySettings", "ThroughPillow",
    "autoencoder_of", "washed", "whole_model",
]  # fmt: skip

Floats = NDArray[np.float32]
Model: TypeAlias = "TextToImage | Autoencoder | Upscaler"
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
        model: the attacker's own model, or its autoencoder, for a method that computes with one.
        settings: the method's own.
    """

    settings_type: ClassVar[type[PurifySettings]]
    needs_model: ClassVar[bool] = False

    def __init__(self, model: Model | None, settings: P) -> None:
        self.settings = settings

    @abstractmethod
    def one(self, image: Tensor, seed: int) -> Tensor:
        """image [3, H, W] in [0, 1] -> the washed one, of the same size."""

    def purify(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `Purifier.purify`.

        Raises:
            UsageError: not one seed a picture, or pictures of another shape.
        """
        import torch

        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        if len(seeds) != len(images):
            raise UsageError(f"purify needs one seed a picture: {len(images)} pictures, {len(seeds)} seeds")
        with torch.no_grad():
            done = torch.empty_like(images)
            for i, seed in enumerate(seeds):
                done[i] = self.one(images[i], seed).clamp(0, 1)
        return done


class OfPixels(PictureByPicture[P]):
    """A purification that needs no torch."""

    @abstractmethod
    def wash(self, picture: Floats, seed: int) -> Floats:
        """picture [H, W, 3] in [0, 1] -> the washed one, of the same size; values outside are clipped later.

        PictureError for a picture that the method cannot take.
        """

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""
        import torch

        picture = image.permute(1, 2, 0).float().cpu().numpy()
        return torch.from_numpy(np.ascontiguousarray(self.wash(picture, seed))).permute(2, 0, 1)


class ThroughPillow(OfPixels[P]):
    """A purification by Pillow. The picture is rounded to 8 bits first; the seed has no effect."""

    @abstractmethod
    def edit(self, picture: Image) -> Image:
        """The washed picture: RGB, of the same size."""

    def wash(self, picture: Floats, seed: int) -> Floats:
        """See `OfPixels.wash`."""
        from PIL import Image

        pixels = np.rint(picture.clip(0, 1) * np.float32(255)).astype(np.uint8)
        return np.asarray(self.edit(Image.fromarray(pixels))).astype(np.float32) / np.float32(255)


def washed(purifier: Purifier, picture: Floats, seed: int) -> Floats:
    """The washed picture [H, W, 3] in [0, 1], whatever the purification computes with."""
    if isinstance(purifier, OfPixels):
        return purifier.wash(picture, seed).clip(0, 1)
    import torch

    image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    done: Floats = purifier.purify(image, [seed])[0].permute(1, 2, 0).numpy()
    return done


def autoencoder_of(model: Model | None, settings: AutoencoderSettings, method: str) -> Autoencoder:
    """The autoencoder that a method computes with: the one that is given, the one that its settings name
    (opened where the model is, or on the first GPU), or the model's. UsageError if there is none."""
    from unlikeness.autoencoders import Autoencoder
    from unlikeness.diffusion.devices import pick_device
    from unlikeness.diffusion.model import TextToImage

    if isinstance(model, Autoencoder):
        return model
    whole = model if isinstance(model, TextToImage) else None
    if settings.autoencoder:
        device = pick_device("auto") if whole is None else whole.device
        return Autoencoder.open(settings.autoencoder, device=device)
    if whole is None:
        raise UsageError(f"purification {method} needs a model or an autoencoder; give one")
    return whole.autoencoder


def whole_model(model: Model | None, method: str) -> TextToImage:
    """The model. UsageError if there is none, or only an autoencoder."""
    from unlikeness.diffusion.model import TextToImage

    if not isinstance(model, TextToImage):
        raise UsageError(f"purification {method} needs a whole model, with its denoiser; give one")
    return model
