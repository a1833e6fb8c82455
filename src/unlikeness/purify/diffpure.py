"""DiffPure (Nie et al. 2022): noise drowns the perturbation, and the denoiser takes both away."""

from __future__ import annotations

from torch import Tensor

from unlikeness.purify.base import Model, PictureByPicture, whole_model
from unlikeness.purify.denoising import denoised, unconditional
from unlikeness.purify.settings import DiffPureSettings
from unlikeness.purify.tiles import by_tiles

__all__ = ["DiffPure", "DiffPureSettings"]


class DiffPure(PictureByPicture[DiffPureSettings]):
    """Adds noise up to a level t*, and denoises without a prompt, in tiles of the model's resolution.

    The paper's model works on pixels. Any of ours works on latents, so each tile also goes through its
    autoencoder. The paper's steps draw fresh noise; ours are deterministic.
    """

    settings_type = DiffPureSettings
    needs_model = True

    def __init__(self, model: Model | None, settings: DiffPureSettings) -> None:
        super().__init__(model, settings)
        from unlikeness.diffusion.fingerprint import fingerprint

        self.model = whole_model(model, "diffpure")
        self.fingerprint = fingerprint(self.model)

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""
        steps, levels = self.settings.steps, round(self.settings.strength * self.model.schedule.steps)
        condition = unconditional(self.model)

        def change(tile: Tensor, number: int) -> Tensor:
            return denoised(
                self.model, tile, condition, levels=levels, steps=steps, seed=seed, number=number
            )

        side = self.model.resolution
        return by_tiles(image, change, side=side, cell=side, overlap=side // 4)
