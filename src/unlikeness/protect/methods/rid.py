"""RID: one forward pass of a trained network, without a model or a gradient (arXiv 2412.09844)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from unlikeness.protect.against import Against
from unlikeness.protect.arrays import check_batch
from unlikeness.protect.rid.opening import open_network
from unlikeness.protect.settings import ProtectSettings, RidSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unlikeness.diffusion.model import TextToImage

__all__ = ["Rid", "RidSettings"]

Floats = NDArray[np.float32]


class Rid:
    """Protects in one forward pass, against models like those that its network was trained on.

    Args:
        model: not needed. If one is given, the network computes on its device.
        settings: weights and budget.
        device: where to compute without a model.
        engine: what computes: see `open_network`.

    On the CPU, ONNX Runtime computes in float32, and torch is not imported. torch computes on other devices,
    in bfloat16 where that is faster. The result depends on the picture alone, not on seeds; the two engines
    differ by rounding.

    Raises:
        UsageError, UnlikenessError: see `open_network`.
    """

    settings_type: ClassVar[type[ProtectSettings]] = RidSettings
    needs_model: ClassVar[bool] = False
    tile: ClassVar[int] = 512
    """Side of the tiles at a picture's own size [px]. Any side works; few large tiles are faster."""

    def __init__(
        self, model: TextToImage | None, settings: RidSettings, *, device: str | torch.device = "auto",
        engine: str = "auto",
    ) -> None:  # fmt: skip
        self.settings = settings
        where = str(device if model is None else model.device)
        self._network = open_network(settings.weights, where, way=settings.way, engine=engine)
        self.resolution = self._network.resolution
        self.fingerprint = self._network.fingerprint
        self.against = Against.trained(settings.weights, self.fingerprint, self._network.about)
        self.engine, self.device, self.dtype = (
            self._network.engine, self._network.device, self._network.dtype
        )  # fmt: skip

    def delta(self, images: Tensor, budget: Tensor) -> Tensor:
        """δ, float32 [B, 3, H, W] in [0, 1] units, nowhere beyond the budget.

        images: [B, 3, H, W] in [0, 1], any size. budget: n/255, [B], or a plane [B, 1, H, W].
        """
        if budget.ndim == 1:
            budget = budget[:, None, None, None].expand(-1, 1, *images.shape[-2:])
        return self._network.tensors(images, budget)

    def perturb(
        self, images: Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """See `Perturber.perturb`. UsageError for pictures of another shape, or not one seed each."""
        check_batch(images, seeds)
        return self.perturb_within(images, images.new_ones(len(images)), seeds, on_step)

    def perturb_within(
        self, images: Tensor, strength: Tensor, seeds: Sequence[int],
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """`perturb` with the budget times `strength` at each pixel: the network takes it as a plane."""
        check_batch(images, seeds)
        images = images.detach()
        delta = self.delta(images, self.settings.budget * strength.detach())
        if on_step is not None:
            on_step(1)
        return (images + delta.to(images)).clamp(0, 1)

    def perturb_arrays(
        self, images: Floats, strength: Floats | None, seeds: Sequence[int],
        on_step: Callable[[int], None] | None = None,
    ) -> Floats:  # fmt: skip
        """See `arrays.perturbed`."""
        check_batch(images, seeds)
        plane = np.full((len(images), 1, *images.shape[2:]), self.settings.budget, np.float32)
        if strength is not None:
            plane *= strength
        delta = self._network.arrays(images, plane)
        if on_step is not None:
            on_step(1)
        protected: Floats = np.clip(images + delta, 0, 1)
        return protected
