"""A perturbation in the coefficients of the discrete cosine transform, after DCT-Shield (arXiv 2504.17894).

    min over a:  ‖E(x + δ) − z_tgt‖²,   δ = IDCT(q · a) in 8 × 8 blocks, no coefficient above `highest`

q are the steps of JPEG's luminance table at `quality`. Each change is proportional to the step that JPEG
rounds it to, which is meant to survive compression. High frequencies, which JPEG removes first, stay as they
are. A step follows the sign of the gradient of a. |δ| <= budget holds by
shrinking whole blocks, since clipping pixels would bring the other frequencies back.

The objective is PhotoGuard's (arXiv 2302.06588, Eq. 2), as in the paper. The paper changes the rounded
coefficients of a JPEG file; here they are not rounded, each colour channel has its own, and the pixel budget
is the bound. The blocks are those of the copy that is worked on, whose grid is not that of the saved file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.protect.aims import Aims
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.published import DctSettings
from unlikeness.protect.rid.train.augment import quantisation
from unlikeness.protect.surrogates import Models, Surrogate
from unlikeness.viewing import viewed

__all__ = ["Dct", "DctSettings", "blocks_to_frequencies", "frequencies_to_blocks"]

_SIDE = 8
_TURNS = 4
"""Of clipping and of taking out high frequencies, in a projection."""


class Dct(GradientProtection[DctSettings]):
    """Pulls the latent to a target by low frequencies alone. Autoencoders alone are enough.

    UsageError for a target that is no picture.
    """

    settings_type = DctSettings

    def __init__(self, models: Models, settings: DctSettings) -> None:
        super().__init__(models, settings)
        self._aims = Aims(settings.target)
        place = torch.arange(_SIDE)
        kept = place[:, None] + place <= settings.highest
        self._steps = quantisation(settings.quality)[0, 0].reshape(_SIDE, _SIDE) * kept

    @property
    def fingerprint(self) -> str:
        """Of the models, and of a target picture."""
        return f"{super().fingerprint} {self._aims.fingerprint}".strip()

    def objective(
        self, surrogate: Surrogate, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """[B]: minus the squared distance to the target's latent, mean over elements."""
        seen = viewed(images, surrogate.resolution)
        latent = surrogate.encode(seen).mean
        target = self._aims.farthest(surrogate, latent.detach(), *seen.shape[-2:])
        return -(latent - target).square().flatten(1).mean(1)

    def step(self, gradient: Tensor) -> Tensor:
        """Each coefficient by its own step of JPEG, and the whole `step_size` long."""
        found = blocks_to_frequencies(gradient)
        move = frequencies_to_blocks(found.sign() * self._steps.to(found), *gradient.shape[-2:])
        length = move.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)
        return move / length * (self.settings.step_size / 255)

    def project(self, images: Tensor, original: Tensor) -> Tensor:
        """Without high frequencies, each block shrunk into the budget; then within [0, 1].

        Clipping and taking out high frequencies in turn first leaves little to shrink.
        """
        height, width = original.shape[-2:]
        budget = self.settings.budget / 255
        delta = images - original
        for _ in range(_TURNS):
            found = blocks_to_frequencies(delta.clamp(-budget, budget))
            delta = frequencies_to_blocks(found * (self._steps > 0).to(found), height, width)
        largest = F.max_pool2d(delta.abs().amax(1, keepdim=True), _SIDE, ceil_mode=True)
        share = (budget / largest.clamp_min(budget)).repeat_interleave(_SIDE, 2).repeat_interleave(_SIDE, 3)
        changed = original + delta * share[..., :height, :width]
        return super().project(changed, original)


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal DCT-II as a matrix [8, 8]: a frequency a row."""
    place = torch.arange(_SIDE, dtype=torch.float64)
    matrix = torch.cos(math.pi / _SIDE * (place + 0.5) * place[:, None]) * math.sqrt(2 / _SIDE)
    matrix[0] /= math.sqrt(2)
    return matrix.to(like)


def blocks_to_frequencies(planes: Tensor) -> Tensor:
    """[B, C, H, W] -> the coefficients [B, C, rows, columns, 8, 8] of 8 × 8 blocks from the top left corner;
    what is missing at the right and below counts as zero."""
    height, width = planes.shape[-2:]
    full = F.pad(planes, (0, -width % _SIDE, 0, -height % _SIDE))
    blocks = full.unfold(2, _SIDE, _SIDE).unfold(3, _SIDE, _SIDE)
    cosines = _cosines(planes)
    found: Tensor = cosines @ blocks @ cosines.T
    return found


def frequencies_to_blocks(found: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `blocks_to_frequencies`, cut to [B, C, height, width]."""
    cosines = _cosines(found)
    blocks = cosines.T @ found @ cosines
    count, channels, rows, columns = blocks.shape[:4]
    planes = blocks.transpose(3, 4).reshape(count, channels, rows * _SIDE, columns * _SIDE)
    return planes[..., :height, :width]
