"""GrIDPure (Zhao et al. 2024): many rounds of a faint DiffPure, on overlapping tiles."""

from __future__ import annotations

from torch import Tensor

from unlikeness.purify.base import Model, PictureByPicture, whole_model
from unlikeness.purify.denoising import denoised, unconditional
from unlikeness.purify.settings import GrIDPureSettings
from unlikeness.purify.tiles import by_tiles
from unlikeness.seeds import derive

__all__ = ["GrIDPure", "GrIDPureSettings"]


class GrIDPure(PictureByPicture[GrIDPureSettings]):
    """In each round, noises and denoises tiles that overlap by half, and blends the result with γ of the
    round's input.

    Tiles have the model's resolution; the paper's model has 256 px and works on pixels. The paper's steps
    draw fresh noise; ours are deterministic.
    """

    settings_type = GrIDPureSettings
    needs_model = True

    def __init__(self, model: Model | None, settings: GrIDPureSettings) -> None:
        super().__init__(model, settings)
        from unlikeness.diffusion.fingerprint import fingerprint

        self.model = whole_model(model, "gridpure")
        self.fingerprint = fingerprint(self.model)

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""
        gamma, levels, side = self.settings.gamma, self.settings.levels, self.model.resolution
        condition = unconditional(self.model)
        for number in range(self.settings.rounds):
            own = derive(seed, "round", number)

            def change(tile: Tensor, at: int, own: int = own) -> Tensor:
                return denoised(
                    self.model, tile, condition, levels=levels, steps=levels, seed=own, number=at
                )

            washed = by_tiles(image, change, side=side, cell=side, overlap=side // 2)
            image = (1 - gamma) * washed + gamma * image.to(washed)
        return image
