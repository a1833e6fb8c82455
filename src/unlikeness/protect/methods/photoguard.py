"""PhotoGuard's encoder attack: pull the latent to a target's (Salman et al. 2023, arXiv 2302.06588, Eq. 2).

    min over δ, |δ| <= budget:  ‖E(x + δ) − z_tgt‖²

E is the mean of the autoencoder's posterior; the U-Net takes no part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness import finite
from unlikeness.errors import PictureError, UsageError
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.settings import PhotoGuardSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["PhotoGuard", "PhotoGuardSettings"]


class PhotoGuard(GradientProtection[PhotoGuardSettings]):
    """Lowers the distance between the picture's latent and the target's."""

    settings_type = PhotoGuardSettings

    def __init__(self, model: TextToImage, settings: PhotoGuardSettings) -> None:
        super().__init__(model, settings)
        self._picture: Tensor | None = None
        self._latents: dict[tuple[int, int], Tensor] = {}
        if settings.target == "grey":
            self._picture = torch.full((1, 3, 8, 8), 0.5)
        elif settings.target != "zero":
            self._picture = _read(Path(settings.target))

    @property
    def fingerprint(self) -> str:
        """Of the model, and of the target if it is a picture."""
        if self._picture is None or self.settings.target == "grey":
            return super().fingerprint
        return f"{super().fingerprint} {hashlib.sha256(self._picture.numpy().tobytes()).hexdigest()[:16]}"

    def target_latent(self, height: int, width: int) -> Tensor:
        """z_tgt for pictures of this size: [1, C, h, w]; a target picture is resized to it."""
        if (height, width) not in self._latents:
            if self._picture is None:
                like = torch.zeros(1, 3, height, width)
            else:
                like = F.interpolate(self._picture, (height, width), mode="bilinear", antialias=True)
            with torch.no_grad():
                latent = self.model.encode(like).mean
            finite.check(latent, finite.ENCODER, self.model.autoencoder.dtype)
            self._latents[height, width] = torch.zeros_like(latent) if self._picture is None else latent
        return self._latents[height, width]

    def objective(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """[B]: minus the squared distance to the target's latent, mean over elements."""
        z_tgt = self.target_latent(images.shape[2], images.shape[3])
        return -(self.model.encode(images).mean - z_tgt).square().flatten(1).mean(1)


def _read(path: Path) -> Tensor:
    """The target picture as [1, 3, H, W] in [0, 1]. UsageError if it cannot be read."""
    from unlikeness.pictures import open_picture

    try:
        picture = open_picture(path)
    except PictureError as error:
        raise UsageError(f"target must be grey, zero or a picture: {error}") from error
    return torch.from_numpy(picture.rgb).permute(2, 0, 1)[None].contiguous()
