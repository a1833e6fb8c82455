"""RID: one forward pass of a trained network, without a model or a gradient (arXiv 2412.09844)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.diffusion.devices import pick_device
from unlikeness.errors import UsageError
from unlikeness.protect.against import Against
from unlikeness.protect.base import check_batch
from unlikeness.protect.rid.weights import open_network
from unlikeness.protect.settings import ProtectSettings, RidSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Rid", "RidSettings"]


class Rid:
    """Protects in one forward pass, against models like those that its network was trained on.

    Args:
        model: not needed. If one is given, the network computes on its device.
        settings: weights and budget.
        device: where to compute without a model.

    The network computes in bfloat16 where that is faster. The result depends on the picture alone, not on
    seeds.

    Raises:
        UsageError, UnlikenessError: see `open_network`; an unknown device, or another than the CPU for an
            exported file.
    """

    settings_type: ClassVar[type[ProtectSettings]] = RidSettings
    needs_model: ClassVar[bool] = False
    tile: ClassVar[int] = 512
    """Side of the tiles at a picture's own size [px]. Any side works; few large tiles are faster."""

    def __init__(
        self, model: TextToImage | None, settings: RidSettings, *, device: str | torch.device = "auto"
    ) -> None:
        self.settings = settings
        if settings.weights.lower().endswith(".onnx") and str(device) not in ("auto", "cpu"):
            raise UsageError(f"an exported protector computes on the CPU, not on {device}; leave device out")
        where = pick_device(device) if model is None else model.device
        self._network = open_network(settings.weights, where, way=settings.way)
        self.resolution = self._network.resolution
        self.fingerprint = self._network.fingerprint
        self.against = Against.trained(settings.weights, self.fingerprint, self._network.about)
        self.device, self.dtype = self._network.device, self._network.dtype

    @torch.no_grad()
    def delta(self, images: Tensor, budget: Tensor) -> Tensor:
        """δ, float32 [B, 3, H, W] in [0, 1] units, nowhere beyond the budget.

        images: [B, 3, H, W] in [0, 1], any size. budget: n/255, [B], or a plane [B, 1, H, W].
        """
        if budget.ndim == 1:
            budget = budget[:, None, None, None].expand(-1, 1, *images.shape[-2:])
        return self._network.delta(images, budget)

    def perturb(
        self, images: Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """See `Perturber.perturb`. UsageError for pictures of another shape, or not one seed each."""
        return self.perturb_within(images, torch.ones(len(images)), seeds, on_step)

    @torch.no_grad()
    def perturb_within(
        self, images: Tensor, strength: Tensor, seeds: Sequence[int],
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """`perturb` with the budget times `strength` at each pixel: the network takes it as a plane."""
        check_batch(images, seeds)
        delta = self.delta(images, self.settings.budget * strength)
        if on_step is not None:
            on_step(1)
        return (images + delta.to(images)).clamp(0, 1)
